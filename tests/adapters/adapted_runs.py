"""Trainers of adapters on tiny students, for the tests and for the ranks that they start."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from tiny_runs import arguments, build, examples, tokenizer
from torch import Tensor, nn
from transformers import PreTrainedModel

from hf_dwt import DWTTrainer
from hf_dwt.adapters import with_adapter

TARGETS = {"masked": ["query", "value", "dense"], "causal": ["c_attn", "c_proj"]}


def lora(kind: str = "masked", **settings: Any) -> LoraConfig:
    """Adapters that are large enough to be seen after a few steps."""
    own = {"target_modules": TARGETS[kind], "r": 4, "lora_alpha": 32, "fan_in_fan_out": kind == "causal"}
    return LoraConfig(**{**own, **settings})


def make_base(kind: str = "masked", **config: Any) -> PreTrainedModel:
    """A student to be adapted, with opinions of its own, dropout included."""
    return build(kind, seed=4, initializer_range=0.3, **config)


def speaking(model: nn.Module) -> nn.Module:
    """An adapted model whose adapter says something from the start."""
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model


def adapted_base(kind: str = "masked", **settings: Any) -> PeftModel:
    """The same, adapted, its adapter speaking."""
    return speaking(with_adapter(make_base(kind), lora(kind, **settings), seed=42))


def make_trainer(folder: Path, kind: str = "masked", *, teacher: Any = "base", **settings: Any) -> DWTTrainer:
    """A trainer of an adapter; settings that are no arguments go to the trainer."""
    named = {"model", "model_init", "peft_config", "train_dataset", "eval_dataset", "callbacks"} & settings.keys()
    ours = {name: settings.pop(name) for name in named}
    if "model" not in ours and "model_init" not in ours:
        ours["model"] = adapted_base(kind)
    args = arguments(folder, **{"allow_bad_teacher": True, "weighting": "constant", "max_steps": 4, **settings})
    defaults = {"train_dataset": examples(), "processing_class": tokenizer()}
    return DWTTrainer(args=args, teacher=teacher, **{**defaults, **ours})


def copy_of_base(kind: str = "masked") -> PreTrainedModel:
    """What the base is, in memory of its own."""
    return deepcopy(make_base(kind))


def trained_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the parameters that are trained, by name."""
    return {name: each.detach().clone() for name, each in model.named_parameters() if each.requires_grad}


def fixed_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of those that are not."""
    return {name: each.detach().clone() for name, each in model.named_parameters() if not each.requires_grad}
