"""Callbacks that go on from a checkpoint by themselves, whether or not the arguments ask for restored callbacks."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import Trainer
from transformers.trainer_callback import ExportableState, TrainerCallback, TrainerState


class SelfRestoring(TrainerCallback, ExportableState):  # type: ignore[misc]
    """A callback that reads its state in `on_train_begin`: `Trainer` shall not put a new one in its place."""

    def saved_in(self, state: TrainerState) -> dict[str, Any]:
        """What the checkpoint that a run goes on from holds of it; nothing if the run starts anew."""
        saved = state.stateful_callbacks.get(type(self).__name__, {}) if state.global_step else {}
        return dict(saved.get("attributes", {}))

    def keep_in(self, state: TrainerState) -> None:
        """Enter its state where `Trainer` looks for it; a checkpoint of another trainer holds none."""
        state.stateful_callbacks[type(self).__name__] = self.state()


class Clock:
    """Wall-clock over interruptions."""

    def __init__(self) -> None:
        self._before = 0.0
        self._started: float | None = None

    @property
    def seconds(self) -> float:
        """So far."""
        return self._before + (0.0 if self._started is None else time.perf_counter() - self._started)

    def start(self, before: float) -> None:
        """Run, after so many seconds."""
        self._before, self._started = before, time.perf_counter()

    def stop(self) -> None:
        """Stand still."""
        self._before, self._started = self.seconds, None

    def leave_out(self, seconds: float) -> None:
        """Turn back by what shall not count, while it runs."""
        if self._started is not None:
            self._before -= seconds


@contextmanager
def set_aside(trainer: Trainer) -> Iterator[None]:
    """Hide such callbacks, and what a checkpoint holds of them, from a trainer that restores callbacks."""
    handler, saved = trainer.callback_handler, trainer.state.stateful_callbacks
    own = [callback for callback in handler.callbacks if isinstance(callback, SelfRestoring)]
    names = {type(callback).__name__ for callback in own}
    handler.callbacks = [callback for callback in handler.callbacks if callback not in own]
    trainer.state.stateful_callbacks = {name: state for name, state in saved.items() if name not in names}
    try:
        yield
    finally:
        handler.callbacks = [*own, *handler.callbacks]
        trainer.state.stateful_callbacks = {**trainer.state.stateful_callbacks, **saved}
