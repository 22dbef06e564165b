"""A run that kills itself at a moment of one's choice when it is started as a script."""

import io
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from tiny_runs import arguments, build, examples, make_teacher, tokenizer
from torch import Tensor

from hf_dwt import DWTTrainer

NUM_STEPS = 9
# What each moment leaves: the last whole checkpoint and, if there is one, the broken one.
LEFT = {
    "after the weights": ("checkpoint-4", "checkpoint-6"),
    "in a file": ("checkpoint-4", "checkpoint-6"),
    "before the state": ("checkpoint-4", "checkpoint-6"),
    "in a step": ("checkpoint-4", None),
    "in a deletion": ("checkpoint-6", "checkpoint-2"),
}


def make_trainer(folder: Path, trainer_class: type[DWTTrainer] = DWTTrainer) -> DWTTrainer:
    """A trainer of three epochs of three steps, with dropout, AdamW and a checkpoint every other step, two at most."""
    settings = {"optim": "adamw_torch", "learning_rate": 1e-2, "lr_scheduler_type": "linear"}
    settings |= {"num_train_epochs": 3, "save_strategy": "steps", "save_steps": 2, "save_total_limit": 2}
    return trainer_class(
        build("masked"),
        arguments(folder, **settings),
        train_dataset=examples(),
        processing_class=tokenizer(),
        teacher=make_teacher(),
    )


def die() -> None:
    """End this process without any clean-up."""
    os.kill(os.getpid(), signal.SIGKILL)


class Dies(DWTTrainer):
    """Dies at a moment of the step, or of the save, that `LEFT` names."""

    moment: str

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.moment == "after the weights" and self.state.global_step == 6:
            die()
        super()._save_optimizer_and_scheduler(output_dir)

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        if self.moment == "before the state" and self.state.global_step == 6:
            die()

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        if self.moment == "in a step" and self.state.global_step == 5:
            # Within the backward pass: some parameters have their gradient, others have not.
            self.model.get_input_embeddings().weight.register_hook(lambda _: die())
        return super().training_step(*args, **kwargs)


def dies_in_a_file() -> None:
    save = torch.save

    def half(value: Any, file: Any, *args: Any, **kwargs: Any) -> None:
        if Path(file).parent.name != "checkpoint-6":
            return save(value, file, *args, **kwargs)
        content = io.BytesIO()
        save(value, content)
        Path(file).write_bytes(content.getvalue()[: content.tell() // 2])
        die()

    torch.save = half


def dies_in_a_deletion() -> None:
    delete = shutil.rmtree

    def half(folder: Any, *args: Any, **kwargs: Any) -> None:
        if Path(folder).name != "checkpoint-2":
            return delete(folder, *args, **kwargs)
        # In the worst order: what tells that it is whole goes last.
        (Path(folder) / "optimizer.pt").unlink()
        (Path(folder) / "model.safetensors").unlink()
        die()

    shutil.rmtree = half


def main(folder: Path, moment: str) -> None:
    if moment == "in a file":
        dies_in_a_file()
    if moment == "in a deletion":
        dies_in_a_deletion()
    torch.set_num_threads(1)
    Dies.moment = moment
    make_trainer(folder, Dies).train()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
