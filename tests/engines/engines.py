"""The engines that two ranks of this machine can run, and what a trainer's models have become under them."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

# Set before accelerate and deepspeed are imported.
os.environ["DS_ACCELERATOR"] = "cpu"

ENGINES = ("ddp", "zero0", "zero1", "zero2", "zero3", "fsdp2")


def prepare(engine: str) -> None:
    """Make this process ready for an engine, before training arguments; 'launched' is that of `accelerate launch`."""
    torch.set_num_threads(1)
    if engine == "launched":
        _without_compiling()
        return
    # What an earlier engine of this process has left behind.
    for name in [each for each in os.environ if each.startswith(("ACCELERATE_USE_", "ACCELERATE_DEEPSPEED", "FSDP_"))]:
        del os.environ[name]
    unset_hf_deepspeed_config()
    if engine == "fsdp2":
        _take_the_path_of_gpus()
    elif engine != "ddp":
        _without_compiling()


def _without_compiling() -> None:
    """Keep DeepSpeed from compiling for minutes."""
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def _take_the_path_of_gpus() -> None:
    """With `use_cpu=True` accelerate runs DDP in place of FSDP2: here it believes in GPUs, and gets gloo."""
    from accelerate import PartialState
    from accelerate.utils import DistributedType
    from transformers import training_args

    os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    PartialState._prepare_backend = lambda *_, **__: ("gloo", DistributedType.MULTI_GPU)
    training_args.is_torch_bf16_gpu_available = lambda: True


def settings_of(engine: str, **zero: Any) -> dict[str, Any]:
    """Training arguments that choose an engine.

    Args:
        engine: One of `ENGINES`.
        zero: Further entries of the DeepSpeed configuration.
    """
    if engine == "ddp":
        return {}
    if engine == "fsdp2":
        config = {"version": 2, "auto_wrap_policy": "TRANSFORMER_BASED_WRAP", "cpu_ram_efficient_loading": False}
        return {"use_cpu": False, "fsdp": True, "fsdp_config": config}
    return {"deepspeed": zero_config(int(engine.removeprefix("zero"))) | zero}


def zero_config(stage: int) -> dict[str, Any]:
    """A DeepSpeed configuration; at stage 3 also the smallest parameters are divided."""
    optimisation: dict[str, Any] = {"stage": stage}
    if stage == 3:
        optimisation |= {"stage3_param_persistence_threshold": 0, "stage3_gather_16bit_weights_on_model_save": True}
    auto = ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "train_batch_size", "gradient_clipping")
    return {"zero_optimization": optimisation, **dict.fromkeys(auto, "auto"), "bf16": {"enabled": "auto"}}


def whole_weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of all parameters by name, put together from all ranks; all ranks must call it."""
    return {name: _whole(parameter) for name, parameter in model.named_parameters()}


def _whole(parameter: nn.Parameter) -> Tensor:
    if isinstance(parameter, DTensor):
        return parameter.full_tensor().detach().clone()
    if "ds_tensor" not in vars(parameter):
        return parameter.detach().clone()
    import deepspeed

    with deepspeed.zero.GatheredParameters([parameter]):
        return parameter.detach().clone()


def own_shares(model: nn.Module) -> dict[str, tuple[int, int]]:
    """How many values of each parameter this rank holds, and how many there are."""
    return {name: _share(parameter) for name, parameter in model.named_parameters()}


def _share(parameter: nn.Parameter) -> tuple[int, int]:
    if isinstance(parameter, DTensor):
        return parameter.to_local().numel(), parameter.numel()
    held = vars(parameter)
    if "ds_tensor" in held:
        # What is there between two forward passes is the share alone.
        return parameter.numel() + held["ds_tensor"].numel(), held["ds_numel"]
    return parameter.numel(), parameter.numel()


def optimiser_share(trainer: Any) -> tuple[int, int]:
    """How many values this rank's optimiser steps, and how many there are."""
    groups = trainer.optimizer.param_groups
    stepped = sum(
        parameter.to_local().numel() if isinstance(parameter, DTensor) else parameter.numel()
        for group in groups
        for parameter in group["params"]
    )
    return stepped, sum(total for _, total in own_shares(trainer.model).values())


def save(value: Any, folder: Path, case: str, rank: int) -> None:
    """Keep what a rank has computed."""
    torch.save(value, folder / f"{case}.{rank}.pt")
