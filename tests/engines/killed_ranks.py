"""Runs of two ranks that are never killed, that lose a rank or their disk, and that are resumed; a script."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import torch
from engines import prepare, settings_of, whole_weights
from rank_cases import untrained_teacher
from tiny_runs import arguments, build, examples, make_student, tokenizer
from transformers import TrainerCallback
from transformers.utils import logging

from hf_dwt import DWTTrainer

NUM_STEPS = 6
# How each engine's run ends before its time; all have a checkpoint of step 2 by then.
ENDINGS = {"ddp": "in a step", "zero2": "in a save", "zero3": "in a step", "fsdp2": "in a save"}
COMPARABLE = {"hidden_size": 16, "train_sampling_strategy": "sequential"}
SHARDED = ("zero3", "fsdp2")
# Wide enough where the disk is filled up that a share of the optimiser is larger than all that a run prints.
HIDDEN_SIZES = {"ddp": 16, "zero2": 64, "zero3": 16, "fsdp2": 16}


class FillsDisk(TrainerCallback):
    """From the third step on the weights fit into a file, and a rank's share of the optimiser does not."""

    def on_step_end(self, args: Any, state: Any, control: Any, *, model: Any = None, **_: Any) -> None:
        if state.global_step == 3:
            weights = 4 * model.num_parameters()
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(1.1 * weights), resource.RLIM_INFINITY))


class DiesInASave(DWTTrainer):
    """Loses the second rank when the checkpoint of the fourth step lacks that rank's generators and the state."""

    def _save_rng_state(self, output_dir: str) -> None:
        if self.state.global_step == 4 and self.args.process_index == 1:
            die()
        super()._save_rng_state(output_dir)


class DiesInAStep(DWTTrainer):
    """Loses the second rank in the backward pass of the fourth step."""

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == 3 and self.args.process_index == 1:
            die()
        return super().training_step(*args, **kwargs)


def die() -> None:
    """End this process without any clean-up, and say which it is."""
    print("dying is", os.getpid(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def make_trainer(
    folder: Path, engine: str, trainer_class: type[DWTTrainer] = DWTTrainer, dropout: bool = True, **settings: Any
) -> DWTTrainer:
    """A trainer with AdamW, a schedule, a checkpoint every other step, and its teacher divided where that can be."""
    plain = {"optim": "adamw_torch", "learning_rate": 1e-2, "lr_scheduler_type": "linear", "max_steps": NUM_STEPS}
    plain |= {"save_strategy": "steps", "save_steps": 2, "save_total_limit": 2, "per_device_train_batch_size": 4}
    plain |= {"allow_bad_teacher": True, "teacher_placement": "sharded" if engine in SHARDED else "replicated"}
    callbacks, hidden_size = settings.pop("callbacks", None), settings.pop("hidden_size", HIDDEN_SIZES[engine])
    return trainer_class(
        (build if dropout else make_student)("masked", hidden_size=hidden_size),
        arguments(folder, **{**plain, **settings_of(engine), **settings}),
        train_dataset=examples(),
        processing_class=tokenizer(),
        teacher=untrained_teacher(),
        callbacks=callbacks,
    )


def keep(folder: Path, name: str, value: Any) -> None:
    rank = torch.distributed.get_rank()
    torch.save(value, folder / f"{name}.{rank}.pt")


def never_killed(folder: Path, engine: str) -> None:
    trainer = make_trainer(folder / engine / "whole", engine, save_strategy="no")
    trainer.train()
    keep(folder, f"{engine} whole", whole_weights(trainer.model))


def divided(folder: Path) -> None:
    """A run under ZeRO-2 that can be compared with one of another number of ranks: without dropout and shuffling."""
    trainer = make_trainer(folder / "divided", "zero2", dropout=False, **COMPARABLE)
    trainer.train()
    keep(folder, "divided", whole_weights(trainer.model))


def killed(folder: Path, engine: str) -> None:
    trainer_class = {"in a save": DiesInASave, "in a step": DiesInAStep}[ENDINGS[engine]]
    make_trainer(folder / engine / "killed", engine, trainer_class).train()


def full_disk(folder: Path, engine: str) -> None:
    make_trainer(folder / engine / "full", engine, save_total_limit=1, callbacks=[FillsDisk()]).train()


def resumed(folder: Path, engine: str) -> None:
    for run in ("killed", "full"):
        if (folder / engine / run).is_dir():
            trainer = make_trainer(folder / engine / run, engine)
            trainer.train(resume_from_checkpoint=True)
            keep(folder, f"{engine} {run}", whole_weights(trainer.model))


def alone(folder: Path) -> None:
    """Resume on one rank what two have left: as it is, and by the command that the refusal names."""
    checkpoint = folder / "divided" / "checkpoint-4"
    settings: dict[str, Any] = {"dropout": False, "per_device_train_batch_size": 8, "save_strategy": "no", **COMPARABLE}
    try:
        make_trainer(folder / "alone", "zero2", **settings).train(str(checkpoint))
    except ValueError as error:
        message = str(error)
    keep(folder, "refusal", message)
    command = message.split("`")[1].split()
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    subprocess.run([sys.executable, *command[1:]], check=True, env=environment)
    universal = settings_of("zero2", checkpoint={"load_universal": True})
    trainer = make_trainer(folder / "alone", "zero2", **settings, **universal)
    trainer.train(str(checkpoint))
    keep(folder, "alone", whole_weights(trainer.model))


def main(folder: Path, what: str, engines: list[str]) -> None:
    datasets.disable_progress_bars()
    logging.disable_progress_bar()
    runs = {"never killed": never_killed, "killed": killed, "full disk": full_disk, "resumed": resumed}
    for engine in engines:
        prepare(engine)
        if what in runs:
            print(what, engine, flush=True)
            runs[what](folder, engine)
        if what == "never killed" and engine == "zero2":
            divided(folder)
        if what == "alone":
            alone(folder)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
