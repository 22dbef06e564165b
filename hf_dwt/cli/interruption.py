"""Ctrl-C: the step is finished and a checkpoint written, so that the run can go on."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState
from transformers.training_args import TrainingArguments

from hf_dwt.comparison import Run, can_resume, carry_out
from hf_dwt.trainer import DWTTrainer


@contextmanager
def resumable(*folders: str | Path) -> Iterator[None]:
    """Note in a `KeyboardInterrupt` the option that takes the runs up, if there is something to go on from.

    Args:
        folders: Of the runs; a whole checkpoint or a result is something.
    """
    try:
        yield
    except KeyboardInterrupt as stop:
        if any(can_resume(Path(folder)) for folder in folders):
            stop.args = ("--resume",)
        raise


def carry_out_interruptibly(trainer: DWTTrainer, name: str, resume: bool = False) -> Run:
    """Do as `carry_out`; the first Ctrl-C while it trains ends the step and writes a checkpoint, the second ends all.

    Ranks would not end the same step: where there are several, each Ctrl-C ends all.

    Raises:
        KeyboardInterrupt: Once the checkpoint is there.
    """
    if trainer.args.world_size > 1:
        return carry_out(trainer, name, resume)
    stop = _StopsAtCtrlC()
    trainer.add_callback(stop)
    before = signal.signal(signal.SIGINT, stop.ask)
    try:
        return carry_out(trainer, name, resume)
    finally:
        signal.signal(signal.SIGINT, before)


class _StopsAtCtrlC(TrainerCallback):  # type: ignore[misc]
    def __init__(self) -> None:
        self._trains = False
        self._asked = False

    def ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked or not self._trains:
            raise KeyboardInterrupt
        self._asked = True
        print("hf-dwt: ending this step and writing a checkpoint; Ctrl-C again ends at once", file=sys.stderr)

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._trains = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._asked:
            control.should_save = control.should_training_stop = True

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Go no further: what comes next evaluates, saves and pushes a finished student."""
        self._trains = False
        if self._asked:
            raise KeyboardInterrupt
