"""What a step costs, by arithmetic: counted by PyTorch on the meta device, so that no weight is loaded."""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedConfig, PreTrainedModel

from hf_dwt.language_models import AUTO_CLASSES, Kind
from hf_dwt.last_layer import find_cut
from hf_dwt.positions import Positions, logits_at, unwrapped
from hf_dwt.unsharded import unsharded

# A backward pass computes the gradients of inputs and weights: twice the work of the forward pass.
_FORWARD_PASSES_PER_STEP = 3


@dataclass(frozen=True)
class StepCost:
    """Floating-point operations of one batch.

    Attributes:
        student_forward: Of the student's forward pass; training takes three times as many.
        teacher_forward: Of the teacher's forward pass.
    """

    student_forward: int
    teacher_forward: int

    @property
    def standalone(self) -> int:
        """Of a training step of the student alone."""
        return _FORWARD_PASSES_PER_STEP * self.student_forward

    @property
    def distilled(self) -> int:
        """Of a training step in which the teacher speaks."""
        return self.standalone + self.teacher_forward

    @property
    def teacher_share(self) -> float:
        """Share of a distilled step that is the teacher's, 0 to 1."""
        return self.teacher_forward / self.distilled


def forward_flops(model: PreTrainedModel, batch_size: int, length: int, num_positions: int) -> int:
    """Count the operations of one forward pass whose head runs at `num_positions` positions.

    Args:
        model: A language model on the meta device, with eager attention (whose products the counter sees).
        batch_size: Examples.
        length: Tokens per example.
        num_positions: Predictions asked for in the whole batch.

    Raises:
        ValueError: If the model's forward pass fails, as one does that depends on the values of its input, which the
            meta device lacks.
    """
    # Found now, so that the trial on a tiny model is not counted.
    find_cut(unwrapped(model))
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        input_ids = torch.zeros(batch_size, length, dtype=torch.long)
        indices = torch.zeros(num_positions, dtype=torch.long)
        try:
            logits_at(model, {"input_ids": input_ids}, Positions(indices, indices, length))
        except Exception as error:  # A modelling file may raise anything.
            name = type(model).__name__
            raise ValueError(f"The operations of `{name}` cannot be counted without data: {error}") from error
    return int(counter.get_total_flops())


def num_configured_parameters(config: PreTrainedConfig, kind: Kind) -> int:
    """Number of parameters of the model that a configuration describes."""
    return int(on_meta(config, kind).num_parameters())


def configured_flops(config: PreTrainedConfig, kind: Kind, batch_size: int, length: int, num_positions: int) -> int:
    """The same for the model that a configuration describes; the arguments are those of `forward_flops`.

    Raises:
        ValueError: If its operations cannot be counted.
    """
    try:
        model = on_meta(config, kind, attn_implementation="eager").eval()
    except Exception as error:  # A modelling file may raise anything.
        raise ValueError(f"No model of a `{type(config).__name__}` can be built without data: {error}") from error
    # Models look for padding tokens and, without a cache, for packed sequences in the values of their input; on the
    # meta device there are none.
    model.config.pad_token_id, model.config.use_cache = None, True
    return forward_flops(model, batch_size, length, num_positions)


def on_meta(config: PreTrainedConfig, kind: Kind, **settings: Any) -> PreTrainedModel:
    """A language model whose weights take no memory and hold nothing."""
    # Where a student is saved the first rank alone comes here.
    with unsharded(), torch.device("meta"):
        model: PreTrainedModel = AUTO_CLASSES[kind].from_config(deepcopy(config), **settings)
    return model
