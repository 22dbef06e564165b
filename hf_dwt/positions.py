"""Run a model's head only where a prediction is asked for.

A masked LM is asked about 15 % of its tokens, yet its head, a third of a small model's forward pass, computes
logits for all of them. Here a forward hook on the backbone keeps the hidden states of the chosen positions, and the
model's own head and whatever wraps the model (DDP, FSDP, DeepSpeed) do the rest. Where a class allows it, the last
layer drops the other tokens already (see `last_layer`).
"""

# Axes in names: B batch, L length, N positions, V vocabulary, H hidden.

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import extract_model_from_parallel
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.trainer_utils import unwrap_peft_model
from transformers.utils import logging

from hf_dwt.language_models import Kind
from hf_dwt.last_layer import Cut, find_cut
from hf_dwt.losses import IGNORED_LABEL

logger = logging.get_logger(__name__)

# What a batch's labels are called. `label` and `label_ids`, which `Trainer` knows too, are classes of examples.
LABEL_NAMES = ("labels", "shift_labels")


@dataclass(frozen=True)
class Positions:
    """The places of a batch where a prediction is asked for.

    Attributes:
        indices: Shape (positions,), indices into the flattened (batch * length) tokens, ascending.
        labels: Shape (positions,), the tokens to be predicted there.
        length: Tokens per example, so that `indices // length` is the example of each position.
    """

    indices: Tensor
    labels: Tensor
    length: int

    def __len__(self) -> int:
        return self.indices.shape[0]

    def __getitem__(self, rows: slice) -> "Positions":
        return Positions(self.indices[rows], self.labels[rows], self.length)

    @property
    def examples(self) -> Tensor:
        """Shape (positions,), which example of the batch each position belongs to."""
        return self.indices // self.length


def masked_positions(labels: Tensor) -> Positions:
    """Positions of a masked LM: each token that has a label predicts that label.

    Args:
        labels: Shape (batch, length), -100 where no prediction is asked for.
    """
    flat_labels = labels.flatten()
    indices = (flat_labels != IGNORED_LABEL).nonzero().squeeze(-1)
    return Positions(indices, flat_labels[indices], labels.shape[-1])


def causal_positions(labels: Tensor) -> Positions:
    """Positions of a causal LM: each token predicts the label of the next one, the last token of a row nothing.

    Args:
        labels: Shape (batch, length), not shifted, -100 where no prediction is asked for.
    """
    return masked_positions(nn.functional.pad(labels[..., 1:], (0, 1), value=IGNORED_LABEL))


def positions_of(kind: Kind, inputs: Mapping[str, Any]) -> Positions:
    """Positions of a batch, by the kind of language model; labels under `shift_labels` are shifted already."""
    if inputs.get("shift_labels") is not None:
        return masked_positions(inputs["shift_labels"])
    return masked_positions(inputs["labels"]) if kind == "masked" else causal_positions(inputs["labels"])


def num_positions(kind: Kind, inputs: Mapping[str, Any]) -> Tensor:
    """Count the positions of a batch: a scalar on its device, which nothing has to wait for."""
    labels: Tensor = inputs["labels"] if inputs.get("shift_labels") is None else inputs["shift_labels"]
    own_shift = kind == "causal" and inputs.get("shift_labels") is None
    return ((labels[..., 1:] if own_shift else labels) != IGNORED_LABEL).sum()


def has_labels(inputs: Mapping[str, Any]) -> bool:
    """Tell whether a batch says what is to be predicted."""
    return any(inputs.get(name) is not None for name in LABEL_NAMES)


def without_labels(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments for a model that shall not compute a loss of its own."""
    return {name: value for name, value in inputs.items() if name not in LABEL_NAMES}


def logits_at(model: nn.Module, inputs: Mapping[str, Any], positions: Positions) -> Tensor:
    """Logits at the given positions, from one forward pass whose head sees no other position.

    Values and gradients are those of the full forward pass. A model class without a separate backbone, or whose
    head needs whole rows, takes the full path; a warning says so once.

    Args:
        model: A language model, possibly wrapped (DDP, DeepSpeed, `torch.compile`, PEFT).
        inputs: Its keyword arguments, without labels.
        positions: Where to predict.

    Returns:
        Shape (positions, vocabulary).
    """
    core = unwrapped(model)
    if not _has_selection(core):
        return select(full_logits(model, inputs), positions)
    with _keep_only(core, inputs, positions):
        logits_1NV = full_logits(model, inputs)
    if logits_1NV.shape[:-1] != (1, len(positions)):
        _classes_without_selection.add(type(core))
        return logits_at(model, inputs, positions)
    return logits_1NV.squeeze(0)


@dataclass(frozen=True)
class Halted:
    """A forward pass that stopped before the head.

    Attributes:
        core: The model without what wraps it.
        output: What its backbone answered.
        states: Shape (positions, hidden), the backbone's hidden states at the positions.
    """

    core: PreTrainedModel
    output: Any
    states: Tensor

    def logits_of(self, states_NH: Tensor, inputs: Mapping[str, Any]) -> Tensor:
        """Run the rest of the model on some hidden states: logits, shape (rows, vocabulary).

        The model's own forward pass is run with the backbone standing by, without the hooks and the compiled code
        around it, which are for whole batches.
        """
        with _answering(self.core.base_model, _with_states(self.output, states_NH.unsqueeze(0))):
            return full_logits(self.core.forward, inputs).squeeze(0)


def halt_at(model: nn.Module, inputs: Mapping[str, Any], positions: Positions) -> Halted | None:
    """Run a model, with what wraps it, up to its head; None if its class needs the full path, see `logits_at`.

    Its forward pass is finished at the first position alone, and that is dropped.
    """
    core = unwrapped(model)
    if not _has_selection(core):
        return None
    with _keep_only(core, inputs, positions, halts=True) as selection:
        logits_11V = full_logits(model, inputs)
        halted = selection.halted
    if halted is None or logits_11V.shape[:-1] != (1, 1):
        _classes_without_selection.add(type(core))
        return None
    return Halted(core, *halted)


def unwrapped(model: nn.Module) -> PreTrainedModel:
    """The language model inside of DDP, DeepSpeed, `torch.compile` and PEFT."""
    core: PreTrainedModel = unwrap_peft_model(extract_model_from_parallel(model, keep_torch_compile=False))
    return core


def full_logits(model: Callable[..., Any], inputs: Mapping[str, Any]) -> Tensor:
    """Logits of one forward pass, shape (batch, length, vocabulary), from tuple and mapping outputs alike."""
    logits: Tensor = model(**inputs)[0]
    return logits


def select(states: Tensor, positions: Positions) -> Tensor:
    """Rows of `states`, shape (batch, length, features), at the positions: shape (positions, features).

    Raises:
        ValueError: If the model answers with another number of rows than it was given tokens.
    """
    if states.shape[1] != positions.length:
        raise ValueError(
            f"The model answers with {states.shape[1]} rows per example to {positions.length} tokens (prompt tuning "
            "puts virtual tokens before them, for instance): its positions cannot be told apart."
        )
    return states.flatten(end_dim=1).index_select(0, positions.indices)


_classes_without_selection: set[type] = set()


def _has_selection(core: PreTrainedModel) -> bool:
    if core.base_model is not core and type(core) not in _classes_without_selection:
        return True
    logger.warning_once(
        f"`{type(core).__name__}` has no backbone whose hidden states its head takes position by position: "
        "its head is run at every position, which costs time and memory but changes no result."
    )
    return False


class _Selection:
    """Forward hook that keeps the hidden states of some positions, and all of them while none are set.

    It stays registered: `torch.compile` does not notice hooks that come and go, but it does notice its attributes.
    """

    def __init__(self) -> None:
        self.positions: Positions | None = None
        self.cut: Cut | None = None
        self.was_sought = self.cuts = self.has_cut = False
        self.halts = False
        self.halted: tuple[Any, Tensor] | None = None

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        if self.positions is None:
            return output
        hidden_NH = output[0].squeeze(0) if self.has_cut else select(output[0], self.positions)
        if not self.halts:
            return _with_states(output, hidden_NH.unsqueeze(0))
        self.halted = output, hidden_NH
        return _with_states(output, hidden_NH[None, :1])

    def in_last_layer(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        """Hook before a module of the last layer, which already drops what nobody asks about."""
        if self.positions is None or self.cut is None or not self.cuts:
            return None
        if not self.cut.fits(args, kwargs, self.positions.length):
            return None
        self.has_cut = True
        return self.cut.apply(args, kwargs, self.positions.indices)


def _with_states(output: Any, states: Tensor) -> Any:
    if isinstance(output, tuple):
        return (states, *output[1:])
    output.last_hidden_state = states
    return output


@contextmanager
def _answering(backbone: nn.Module, output: Any) -> Iterator[None]:
    """Let a backbone give an answer that is there already."""
    own = vars(backbone).get("forward")
    backbone.forward = lambda *args, **kwargs: output
    try:
        yield
    finally:
        del backbone.forward
        if own is not None:
            backbone.forward = own


def _selection_of(core: PreTrainedModel) -> _Selection:
    backbone = core.base_model
    for hook in backbone._forward_hooks.values():
        if isinstance(hook, _Selection):
            return hook
    selection = _Selection()
    backbone.register_forward_hook(selection)
    _forget_compiled()
    return selection


def _seek_cut(core: PreTrainedModel, selection: _Selection) -> None:
    selection.was_sought, selection.cut = True, find_cut(core)
    module = None if selection.cut is None else selection.cut.module_of(core)
    if module is not None:
        module.register_forward_pre_hook(selection.in_last_layer, with_kwargs=True)
        _forget_compiled()


def _forget_compiled() -> None:
    if "torch._dynamo" in sys.modules:
        # A graph that was compiled before would go on without a new hook.
        torch.compiler.reset()


@contextmanager
def _keep_only(
    core: PreTrainedModel, inputs: Mapping[str, Any], positions: Positions, halts: bool = False
) -> Iterator[_Selection]:
    selection = _selection_of(core)
    # Activations that are computed again in the backward pass would be so without a selection.
    recomputes = core.training and core.is_activation_checkpointing
    selection.positions, selection.halts = positions, halts
    selection.cuts = not recomputes and _most_unasked(inputs, positions)
    if selection.cuts and not selection.was_sought:
        _seek_cut(core, selection)
    try:
        yield selection
    finally:
        selection.positions, selection.halted = None, None
        selection.cuts = selection.has_cut = selection.halts = False


def _most_unasked(inputs: Mapping[str, Any], positions: Positions) -> bool:
    tokens = inputs.get("input_ids")
    return tokens is not None and 2 * len(positions) < tokens.numel()
