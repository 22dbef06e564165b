"""What engine a trainer really runs on, as the engine's own objects tell; one JSON file of each rank."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from transformers import Trainer


def report_engine(trainer: Trainer) -> None:
    """Write `engine.RANK.json` into the output folder."""
    args = trainer.args
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    # DeepSpeed's launcher has a name of its own for it.
    here = os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("LOCAL_SIZE"))
    facts = {"ranks": args.world_size, "ranks here": int(here or 1), "losses": losses}
    facts |= _facts_of(trainer.model_wrapped, trainer.optimizer)
    Path(args.output_dir).mkdir(parents=True, exist_ok=True)
    Path(args.output_dir, f"engine.{args.process_index}.json").write_text(json.dumps(facts))


def _facts_of(model: nn.Module, optimizer: Any) -> dict[str, Any]:
    """Kind of engine, and how many numbers this rank holds of the weights and of Adam's first moments."""
    parameters = list(model.parameters())
    if isinstance(model, DistributedDataParallel):
        facts: dict[str, Any] = {"engine": "ddp"}
        base = optimizer.optimizer
    elif isinstance(model, FSDPModule):
        facts = {"engine": "fsdp2", "units": sum(isinstance(module, FSDPModule) for module in model.modules())}
        base = optimizer.optimizer
    elif type(model).__name__ == "DeepSpeedEngine":
        facts = {"engine": f"zero{model.zero_optimization_stage()}", "wrapper": type(model.optimizer).__name__}
        facts["offload"] = _offloaded(model)
        base = model.basic_optimizer
    else:
        facts, base = {"engine": type(model).__name__}, optimizer.optimizer
    moments = [state["exp_avg"] for state in base.state.values()]
    return {
        **facts,
        "optimizer": type(base).__name__,
        "weights": sum(map(_num_held, parameters)),
        "moments": sum(map(_num_held, moments)),
        "parameters": sum(map(_num_whole, parameters)),
    }


def _offloaded(engine: Any) -> list[str]:
    offloaded = {"states": engine.zero_offload_optimizer(), "weights": engine.zero_offload_param()}
    return [name for name, settings in offloaded.items() if settings is not None and settings.device != "none"]


def _num_held(tensor: torch.Tensor) -> int:
    if isinstance(tensor, DTensor):
        return tensor.to_local().numel()
    return vars(tensor).get("ds_tensor", tensor).numel()


def _num_whole(tensor: torch.Tensor) -> int:
    return vars(tensor).get("ds_numel", tensor.numel())
