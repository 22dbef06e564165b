"""Which teacher a run has: kept in its checkpoints, so that it is not resumed with another one unnoticed."""

import hashlib
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.trainer_callback import TrainerControl, TrainerState
from transformers.training_args import TrainingArguments
from transformers.utils import logging

from hf_dwt.self_restoring import SelfRestoring

logger = logging.get_logger(__name__)

_NUM_SAMPLED = 256
_WORDS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class TeacherIdentity:
    """What tells one teacher from another.

    Attributes:
        name: Hub id or folder, None for a model that was passed in memory.
        commit: Of a Hub id.
        fingerprint: Of its weights, see `fingerprint_of`; None if they are not there.
        cache: Number and epochs of what it is heard from, see `cache.manifest`; None if it is asked itself.
    """

    name: str | None = None
    commit: str | None = None
    fingerprint: str | None = None
    cache: str | None = None

    def __str__(self) -> str:
        name = "a model passed in memory" if self.name is None else repr(self.name)
        told = {"commit": self.commit, "weights": self.fingerprint, "cache": self.cache}
        return ", ".join([name, *(f"{what} {value[:12]}" for what, value in told.items() if value is not None)])

    def differs_from(self, other: "TeacherIdentity") -> bool:
        """Tell whether this is another teacher: by the weights or caches, wherever they are, if both are known.

        Of a cache and the teacher itself names and commits are compared; without a name they count as different.
        """
        for own, others in ((self.fingerprint, other.fingerprint), (self.cache, other.cache)):
            if own is not None and others is not None:
                return own != others
        return self.name is None or (self.name, self.commit) != (other.name, other.commit)

    def may_be_cast_from(self, other: "TeacherIdentity") -> bool:
        """Tell whether the same weights in another precision could be all the difference."""
        same_source = (self.name, self.commit) == (other.name, other.commit)
        return same_source and None not in (self.fingerprint, other.fingerprint)


class KeepsTeacher(SelfRestoring):
    """Keeps the teacher's identity in the checkpoints, and refuses to resume with another teacher.

    Args:
        identity: Of the teacher of this run.
    """

    def __init__(self, identity: TeacherIdentity) -> None:
        self.identity = identity

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Compare with what the checkpoint holds; one that knows of no teacher is told.

        Raises:
            ValueError: If that is another teacher.
        """
        saved = self.saved_in(state)
        before = TeacherIdentity(**saved)
        if saved and self.identity.differs_from(before):
            moved = before.name == self.identity.name and before.commit not in (None, self.identity.commit)
            how = f" (its branch has moved: `load_teacher(..., revision={before.commit!r})`)" if moved else ""
            if self.identity.may_be_cast_from(before):
                how = " (in the same precision: has `teacher_dtype` changed?)"
            raise ValueError(
                f"The checkpoint's run learnt from another teacher ({before}) than this one ({self.identity}). Pass "
                f"the teacher that it had{how}; to go on with another one, start a new run from the checkpoint's "
                "weights."
            )
        if not saved and state.global_step:
            logger.warning(
                f"The checkpoint's run had no teacher, from step {state.global_step} on there is one ({self.identity})."
            )
        self.keep_in(state)

    def state(self) -> dict[str, Any]:
        """Return what is saved."""
        return {"args": {}, "attributes": asdict(self.identity)}


@torch.no_grad()
def fingerprint_of(parameters: Iterable[tuple[str, AbstractContextManager[Tensor]]]) -> str:
    """Fingerprint of weights: their names, shapes, precisions, and for each of them the sum of all its bits as integers
    and some of its values in their places.

    One pass that reads each weight once, on the device where it is; the same on every device and number of ranks.

    Args:
        parameters: Names, and contexts that give the values.
    """
    digest = hashlib.sha256()
    for name, context in parameters:
        with context as values:
            words = values.detach().contiguous().view(-1).view(_WORDS[values.element_size()])
            step = max(1, len(words) // _NUM_SAMPLED)
            total = int(words.sum(dtype=torch.int64))
            sampled = words[::step][:_NUM_SAMPLED].long().tolist()
            digest.update(repr((name, tuple(values.shape), str(values.dtype), total, sampled)).encode())
    return digest.hexdigest()
