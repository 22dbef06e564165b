"""A run that kills itself in the middle of a save when it is started as a script."""

import io
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from tiny_runs import arguments, build, examples, make_teacher, tokenizer

from hf_dwt import DWTTrainer

LAST_WHOLE, HALF_WRITTEN = "checkpoint-4", "checkpoint-6"
NUM_STEPS = 9


def make_trainer(folder: Path) -> DWTTrainer:
    """A trainer of three epochs of three steps, with dropout, AdamW and a checkpoint every other step."""
    settings = {"optim": "adamw_torch", "learning_rate": 1e-2, "lr_scheduler_type": "linear"}
    settings |= {"num_train_epochs": 3, "save_strategy": "steps", "save_steps": 2}
    return DWTTrainer(
        build("masked"),
        arguments(folder, **settings),
        train_dataset=examples(),
        processing_class=tokenizer(),
        teacher=make_teacher(),
    )


def main(folder: Path) -> None:
    save = torch.save

    def half(value: Any, file: Any, *args: Any, **kwargs: Any) -> None:
        if Path(file).parent.name != HALF_WRITTEN:
            return save(value, file, *args, **kwargs)
        content = io.BytesIO()
        save(value, content)
        Path(file).write_bytes(content.getvalue()[: content.tell() // 2])
        os.kill(os.getpid(), signal.SIGKILL)

    torch.save = half
    torch.set_num_threads(1)
    make_trainer(folder).train()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
