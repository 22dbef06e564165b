"""Adapters on two ranks, under DDP or ZeRO-3: each case is run by both and saved, gathered where it was divided."""

import os
import sys
from pathlib import Path
from typing import Any

os.environ["DS_ACCELERATOR"] = "cpu"

import datasets
import torch
from adapted_runs import adapted_base, copy_of_base, lora, make_base, make_trainer
from tiny_runs import examples, without_dropout
from torch import Tensor, nn
from transformers.utils import logging

ENGINES = ("ddp", "zero3")
CASES = ("base", "base in parts", "copy", "alone", "fresh")


def zero3() -> dict[str, Any]:
    """A DeepSpeed configuration under which the smallest parameters are divided too."""
    optimisation = {"stage": 3, "stage3_param_persistence_threshold": 0}
    optimisation["stage3_gather_16bit_weights_on_model_save"] = True
    auto = ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "train_batch_size", "gradient_clipping")
    return {"zero_optimization": optimisation, **dict.fromkeys(auto, "auto")}


def settings_of(engine: str) -> dict[str, Any]:
    return {"deepspeed": zero3()} if engine == "zero3" else {}


def gathered(model: nn.Module, *, trained: bool) -> dict[str, Tensor]:
    """A copy of the parameters that are trained, or that are not; all ranks must call it."""
    return {name: _whole(each) for name, each in model.named_parameters() if each.requires_grad is trained}


def _whole(parameter: nn.Parameter) -> Tensor:
    if "ds_tensor" not in vars(parameter):
        return parameter.detach().clone()
    import deepspeed

    with deepspeed.zero.GatheredParameters([parameter]):
        return parameter.detach().clone()


def run(case: str, folder: Path, engine: str = "ddp", batch_size: int = 4) -> dict[str, Any]:
    """Four steps without dropout, whose masks two ranks would draw otherwise; then an evaluation and a save."""
    from hf_dwt import heads

    most = heads._MOST_LOGITS_ON_CPU
    heads._MOST_LOGITS_ON_CPU = 3 * make_base().config.vocab_size if case == "base in parts" else most
    teacher = {"copy": copy_of_base(), "alone": None}.get(case, "base")
    model = {"model": make_base(), "peft_config": lora()} if case == "fresh" else {"model": adapted_base()}
    without_dropout(model["model"])
    sizes = {"per_device_train_batch_size": batch_size, "per_device_eval_batch_size": 4, "logging_steps": 1}
    order = {"train_sampling_strategy": "sequential", "eval_dataset": examples(num=11)}
    if case == "alone":
        sizes["weighting"] = "linear"
    trainer = make_trainer(folder, teacher=teacher, **model, **sizes, **order, **settings_of(engine))
    trainer.train()
    heads._MOST_LOGITS_ON_CPU = most
    names = ("loss", "hard_loss", "soft_loss", "teacher_hard_loss")
    logs = [
        {name: each[name] for name in names if name in each} for each in trainer.state.log_history if "loss" in each
    ]
    fixed = gathered(trainer.model, trained=False)
    modes = [module.training for module in trainer.model.modules()]
    evaluated = trainer.evaluate()
    trainer.save_model()
    return {
        "trained": gathered(trainer.model, trained=True),
        "fixed": fixed,
        "modes": modes,
        "logs": logs,
        "evaluated": {name: evaluated[name] for name in ("eval_loss", "eval_gap") if name in evaluated},
        "num_ranks": trainer.accelerator.num_processes,
        "kind_of_run": trainer.accelerator.distributed_type.value,
        "is_divided": any(vars(each).get("ds_tensor") is not None for each in trainer.model.parameters()),
        "record": trainer.record()["student"],
    }


def main(folder: Path, engine: str) -> None:
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    logging.disable_progress_bar()
    if engine == "zero3":
        import deepspeed

        # Without it DeepSpeed compiles for minutes.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    for case in CASES:
        result = run(case, folder / f"{engine} {case}", engine)
        torch.save(result, folder / f"{engine} {case}.{os.environ['RANK']}.pt")
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
