"""The teacher's share of a step, by arithmetic."""

from copy import deepcopy

import torch
from transformers import PretrainedConfig, PreTrainedModel

from hf_dwt.costs import StepCost, forward_flops


def teacher_share(
    student: tuple[type[PreTrainedModel], PretrainedConfig],
    teacher: tuple[type[PreTrainedModel], PretrainedConfig],
    shape: tuple[int, int, int],
) -> float | None:
    """Share of a distilled step's operations that is the teacher's, 0 to 1; None if they cannot be counted.

    Args:
        student: Its class and configuration.
        teacher: The teacher's.
        shape: Examples, tokens per example and positions of a micro-batch.
    """
    try:
        return StepCost(_flops(*student, shape), _flops(*teacher, shape)).teacher_share
    except ValueError:
        return None


def _flops(model_class: type[PreTrainedModel], config: PretrainedConfig, shape: tuple[int, int, int]) -> int:
    with torch.device("meta"):
        model = model_class._from_config(deepcopy(config), attn_implementation="eager").eval()
    # Models look for padding tokens and, without a cache, for packed sequences in the values of their input.
    model.config.pad_token_id, model.config.use_cache = None, True
    return forward_flops(model, *shape)
