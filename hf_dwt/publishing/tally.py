"""What a run has taken so far, over interruptions: wall-clock and tokens."""

from typing import Any

from torch import Tensor
from transformers.trainer_callback import TrainerState
from transformers.training_args import TrainingArguments

from hf_dwt.losses import IGNORED_LABEL
from hf_dwt.self_restoring import Clock, SelfRestoring


class Tally(SelfRestoring):
    """Counts, and goes on from what a checkpoint says."""

    def __init__(self) -> None:
        self.tokens = 0
        self.shape: tuple[int, int, int] | None = None
        self._clock = Clock()

    @property
    def seconds(self) -> float:
        """Wall-clock of training, evaluations and saves included."""
        return self._clock.seconds

    def add(self, tokens: Tensor, labels: Tensor | None) -> None:
        """Count a micro-batch of this rank, its padding included; the first one's shape and positions are kept."""
        self.tokens += tokens.numel()
        if self.shape is None and tokens.dim() == 2:
            num_positions = tokens.numel() if labels is None else max(int((labels != IGNORED_LABEL).sum()), 1)
            self.shape = (*tokens.shape, num_positions)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Start, or go on."""
        saved = self.saved_in(state)
        self.tokens = saved.get("tokens", 0)
        self._clock.start(saved.get("seconds", 0.0))
        self.keep_in(state)

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Stop."""
        self._clock.stop()

    def state(self) -> dict[str, Any]:
        """Return what is saved."""
        return {"args": {}, "attributes": {"tokens": self.tokens, "seconds": self.seconds}}
