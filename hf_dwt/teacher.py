"""The weak teacher: loaded from the Hub or a folder, checked and frozen."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from inspect import signature
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import AutoConfig, PreTrainedModel
from transformers.trainer_utils import unwrap_peft_model

from hf_dwt.heads import Head, head_at
from hf_dwt.hub.access import fetch_model, is_full_commit, resolve_commit
from hf_dwt.language_models import AUTO_CLASSES, architecture_kind, language_model_kind, longest_sequence
from hf_dwt.model_files import (
    check_folder,
    load_tokenizer,
    looks_local,
    name_of,
    refuse_broken_files,
    refuse_custom_code,
    refuse_new_weights,
    without_conversion_service,
)
from hf_dwt.positions import Positions
from hf_dwt.unsharded import unsharded
from hf_dwt.vocabulary import num_tokens

# Read of every example: by the model, or by what makes batches and masks; and what `Trainer` takes for labels.
_COLUMNS = frozenset({"input_ids", "attention_mask", "labels", "label", "label_ids"})


@dataclass(frozen=True)
class Origin:
    """Where a teacher came from.

    Attributes:
        name: Hub id or folder as it was given, None for a model that was passed in memory.
        revision: Branch, tag or commit as it was asked for.
        commit: Full commit that it was resolved to, None for a folder.
    """

    name: str | None = None
    revision: str | None = None
    commit: str | None = None

    def __str__(self) -> str:
        if self.name is None:
            return "a model passed in memory"
        return self.name if self.commit is None else f"{self.name}@{self.commit}"


@dataclass(frozen=True)
class Teacher:
    """A frozen language model that a student listens to.

    The model is put into evaluation mode and its parameters stop requiring gradients; nothing else of it changes.

    Attributes:
        model: A masked or causal language model.
        processing_class: Its tokenizer, None if it is not known.
        origin: Where it came from.

    Raises:
        TypeError: If the model is no masked or causal language model.
        ValueError: If it is quantised, spread over devices, or has fewer logits than its tokenizer has tokens.

    Example:
        >>> from transformers import BertConfig, BertForMaskedLM
        >>> small = BertConfig(vocab_size=9, hidden_size=12, num_hidden_layers=1)
        >>> Teacher(BertForMaskedLM(small)).kind
        'masked'
    """

    model: PreTrainedModel
    processing_class: Any | None = None
    origin: Origin = field(default_factory=Origin)

    # Whether it is a part of the student.
    shares_student: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not isinstance(self.model, torch.nn.Module) or language_model_kind(self.model) is None:
            raise TypeError(
                f"`teacher` must be a masked or causal language model, got {type(self.model).__name__} "
                f"({self.origin}). Encoder-decoders and bare encoders cannot teach here."
            )
        _check_whole_and_unquantised(self)
        if self.processing_class is not None and num_tokens(self.processing_class) > self.vocab_size:
            raise ValueError(
                f"The teacher ({self.origin}) predicts {self.vocab_size} tokens, but its tokenizer has "
                f"{num_tokens(self.processing_class)}: they do not belong together."
            )
        self.model.requires_grad_(False).eval()

    @property
    def kind(self) -> str:
        """'masked' or 'causal'."""
        return str(language_model_kind(self.model))

    @property
    def vocab_size(self) -> int:
        """Width of its logits, padding rows included."""
        size: int = self.model.config.get_text_config().vocab_size
        return size

    @property
    def columns(self) -> frozenset[str]:
        """Columns of examples that it reads, and those that hold labels."""
        return self._parameters | _COLUMNS

    @torch.no_grad()
    def head_at(
        self,
        inputs: Mapping[str, Any],
        positions: Positions,
        num_shared_tokens: int,
        parts: Sequence[slice] = (slice(None),),
        *,
        map_added_tokens_to_unknown: bool = False,
        student_may_add_tokens: bool = True,
        run: torch.nn.Module | None = None,
    ) -> Head:
        """Its head at the positions, whose logits of the shared tokens have shape (positions, shared tokens).

        Args:
            inputs: The student's keyword arguments; those that the teacher does not know are left out.
            positions: Where to predict.
            num_shared_tokens: Real tokens that both models know, see `vocabulary.num_shared_tokens`.
            parts: Rows of `positions` that are to be taken together.
            map_added_tokens_to_unknown: Read the unknown token where the student has added one.
            student_may_add_tokens: False spares looking for tokens that the teacher lacks, for which a GPU has to be
                waited for: the student has none.
            run: What to call for the forward pass, where an engine is around the model.

        Raises:
            ValueError: If the sequences are longer than the teacher can read, or hold tokens that it lacks.
        """
        self._check_length(inputs["input_ids"].shape[-1])
        own = {name: value for name, value in inputs.items() if name in self._parameters}
        if student_may_add_tokens:
            own["input_ids"] = self._known_tokens(inputs["input_ids"], num_shared_tokens, map_added_tokens_to_unknown)
        # A cache is of no use here, and the router's auxiliary loss would come before the logits.
        own |= {name: False for name in ("use_cache", "output_router_logits") if name in self._parameters}
        head = head_at(self.model if run is None else run, own, positions, parts)

        @torch.no_grad()
        def shared_logits_of(states: Tensor) -> Tensor:
            return head.logits_of(states)[:, :num_shared_tokens]

        return Head(head.states, shared_logits_of, head.parts)

    def logits_at(
        self, inputs: Mapping[str, Any], positions: Positions, num_shared_tokens: int, **kwargs: Any
    ) -> Tensor:
        """Logits of the shared tokens, shape (positions, shared tokens), without gradient; see `head_at`."""
        return self.head_at(inputs, positions, num_shared_tokens, **kwargs).logits(slice(None))

    def _known_tokens(self, input_ids: Tensor, num_shared_tokens: int, map_to_unknown: bool) -> Tensor:
        added = input_ids >= num_shared_tokens
        if map_to_unknown:
            return input_ids.masked_fill(added, self.processing_class.unk_token_id)  # type: ignore[union-attr]
        if added.any():
            raise ValueError(
                f"The input holds token {int(input_ids[added][0])}, which the teacher ({self.origin}) lacks: it knows "
                f"{num_shared_tokens}. In training, `map_added_tokens_to_unknown=True` shows it its unknown token."
            )
        return input_ids

    @cached_property
    def _parameters(self) -> frozenset[str]:
        # The wrapper of PEFT takes anything; what is read by name is said by the model inside.
        return frozenset(signature(unwrap_peft_model(self.model).forward).parameters)

    @cached_property
    def _longest_sequence(self) -> int | None:
        return longest_sequence(self.model)

    def _check_length(self, length: int) -> None:
        limit = self._longest_sequence
        if limit is not None and length > limit:
            raise ValueError(
                f"The teacher ({self.origin}) reads at most {limit} tokens (`max_position_embeddings`), the batch "
                f"has {length}. Cut the examples shorter."
            )


def load_teacher(
    name: str | os.PathLike[str],
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    subfolder: str = "",
    dtype: str | torch.dtype | None = None,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
) -> Teacher:
    """Load a frozen teacher, with its tokenizer, from the Hub or a folder.

    Every process loads it whole, also under ZeRO-3: a machine holds one copy in CPU memory for each of its ranks, until
    the trainer places it.

    Args:
        name: Hub id or folder of a masked or causal language model.
        revision: Branch, tag or commit of a Hub id; resolved to a full commit once, from which everything is read.
        token: Hub token for a private or gated repository; by default the one that is logged in.
        subfolder: Where the model is in the repository or folder.
        dtype: Precision of the weights. Default: as they were saved.
        allow_pickle: Also read `.bin` files, weights only, where there are no safetensors.
        trust_remote_code: Run the repository's own modelling code; of a Hub id, `revision` must be a full commit.

    Raises:
        FileNotFoundError: If a folder is missing, or holds no model.
        OSError: If the Hub does not have it, not in safetensors, or a file is cut short.
        ValueError: If it is no masked or causal language model, its head was never trained, it needs code of its
            own that is not trusted, or a revision of a folder is asked for.

    Example:
        >>> load_teacher("./no-such-folder")
        Traceback (most recent call last):
        ...
        FileNotFoundError: `teacher` is './no-such-folder', which is no folder with a config.json.
    """
    name = name_of(name)
    if looks_local(name):
        check_folder(os.path.join(name, subfolder) if subfolder else name, revision)
        folder, origin = Path(name).expanduser() / subfolder, Origin(name)
    else:
        if trust_remote_code and not is_full_commit(revision):
            raise ValueError(
                f"`trust_remote_code=True` runs the code of {name!r}: read it, then pass the full commit that you have "
                f"read as `revision`, got {revision!r}."
            )
        origin = Origin(name, revision, resolve_commit(name, revision, token, subfolder))
        assert origin.commit is not None
        folder = fetch_model(
            name, origin.commit, token, subfolder=subfolder, pickles=allow_pickle, code=trust_remote_code
        )
    return _load(folder, origin, dtype, allow_pickle, trust_remote_code)


def _load(
    folder: Path, origin: Origin, dtype: str | torch.dtype | None, allow_pickle: bool, trust_remote_code: bool
) -> Teacher:
    refuse_broken_files(folder, origin)
    refuse_custom_code(folder, origin, trust_remote_code)
    source: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    config = AutoConfig.from_pretrained(folder, **source)
    kind = architecture_kind(config)
    if kind is None:
        raise ValueError(
            f"The teacher ({origin}) says that it is {config.architectures or 'of no architecture'}, which is no "
            "masked or causal language model: it has no trained head to learn from."
        )
    # Weights of another shape are refused below, by name.
    weights: dict[str, Any] = {"dtype": dtype or "auto", "ignore_mismatched_sizes": True}
    weights["use_safetensors"] = None if allow_pickle else True
    try:
        with unsharded(), without_conversion_service():
            model, loading = AUTO_CLASSES[kind].from_pretrained(folder, output_loading_info=True, **weights, **source)
    except (OSError, UnpicklingError) as error:
        hint = "" if allow_pickle else " Only safetensors are read unless you pass `allow_pickle=True`."
        raise OSError(f"The weights of the teacher ({origin}) could not be loaded: {error}{hint}") from error
    refuse_new_weights(origin, loading)
    if origin.commit is not None:
        # Not the folder of this machine's cache.
        model.name_or_path = model.config.name_or_path = origin.name
    return Teacher(model, load_tokenizer(str(folder), source), origin)


def as_teacher(
    teacher: "Teacher | PreTrainedModel | str | os.PathLike[str]",
    dtype: str | None = None,
    *,
    revision: str | None = None,
) -> Teacher:
    """Make a `Teacher` of whatever a user passes as `teacher`, its weights cast to `dtype` if that is given.

    Args:
        teacher: A `Teacher`, a language model, a Hub id or a folder.
        dtype: Precision of the weights.
        revision: Branch, tag or commit of a Hub id.

    Raises:
        TypeError: If it is neither a `Teacher`, a language model, a Hub id nor a folder.
    """
    if isinstance(teacher, str | os.PathLike):
        return load_teacher(teacher, dtype=dtype, revision=revision)
    if not isinstance(teacher, Teacher):
        teacher = Teacher(teacher)
    if dtype is not None:
        teacher.model.to(getattr(torch, dtype))
    return teacher


def num_mapped_devices(model: torch.nn.Module) -> int:
    """Count the devices, CPU and disk included, that a `device_map` has put parts of a model on; 0 without one."""
    return len(set(vars(unwrap_peft_model(model)).get("hf_device_map", {}).values()))


def _check_whole_and_unquantised(teacher: Teacher) -> None:
    num_devices = num_mapped_devices(teacher.model)
    if num_devices > 1:
        raise ValueError(
            f"The teacher ({teacher.origin}) is spread over {num_devices} devices by a `device_map`. Load it "
            "without one: it is placed next to the student."
        )
    if "quantization_config" in teacher.model.config.to_dict():
        raise ValueError(
            f"The teacher ({teacher.origin}) is quantised. Load it unquantised; `teacher_dtype='bfloat16'` halves it."
        )
