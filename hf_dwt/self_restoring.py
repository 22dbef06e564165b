"""Callbacks that go on from a checkpoint by themselves, whether or not the arguments ask for restored callbacks."""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import Trainer
from transformers.trainer_callback import ExportableState, TrainerCallback


class SelfRestoring(TrainerCallback, ExportableState):  # type: ignore[misc]
    """A callback that reads its state in `on_train_begin`: `Trainer` shall not put a new one in its place."""


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
