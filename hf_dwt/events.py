"""What `DWTTrainer` does at the events of a run: callbacks that it adds to itself."""

import weakref
from typing import Any, Protocol

from transformers.trainer_callback import (
    TrainerCallback,
    TrainerControl,
    TrainerState,
)
from transformers.training_args import TrainingArguments

from hf_dwt.arguments import DistillationArguments
from hf_dwt.self_restoring import SelfRestoring
from hf_dwt.weighting import uses_progress


class Listener(Protocol):
    """The part of `DWTTrainer` that `TrainerEvents` tells of events."""

    def before_training(self) -> None:
        """Check data and teacher; the models are in place, no step is done."""

    def before_epoch(self, epoch: int) -> None:
        """Draw new masks."""

    def before_step(self) -> None:
        """Let the teacher go if it will not be asked again."""

    def refuse_broken_teacher(self) -> None:
        """Refuse a result that a broken teacher has spoilt."""


class TrainerEvents(TrainerCallback):  # type: ignore[misc]
    """Passes the events of a run on to its trainer."""

    def __init__(self, listener: Listener) -> None:
        # The trainer holds its callbacks: a strong reference back would keep its models in memory after it is gone.
        self._listener = weakref.proxy(listener)
        self._epoch: int | None = None

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Pass the start of training on."""
        self._epoch = None
        self._listener.before_training()

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Pass the start of an epoch on, or of what is left of it after a resume."""
        # Counted, since `state.epoch` is short of the next whole number where a stream or a callback ends an epoch.
        self._epoch = int(state.epoch or 0) if self._epoch is None else self._epoch + 1
        self._listener.before_epoch(self._epoch)

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Pass the start of an optimiser step on."""
        self._listener.before_step()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Pass the end of training on."""
        self._listener.refuse_broken_teacher()


class WeightingHorizon(SelfRestoring):
    """Keeps the horizon of the weighting policy in the checkpoints, and refuses to change it unnoticed."""

    def __init__(self) -> None:
        self.steps: int | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Set the horizon; a resumed run's must be the saved one, unless another was asked for.

        Raises:
            ValueError: If the run's length has changed, the policy looks at it, and `weighting_steps` is not given.
        """
        choices = args if isinstance(args, DistillationArguments) else DistillationArguments()
        requested = choices.weighting_steps
        self.steps = requested or state.max_steps
        saved = self.saved_in(state).get("steps")
        changed = saved not in (None, self.steps) and requested is None
        if changed and uses_progress(choices.policy()):
            raise ValueError(
                f"The checkpoint's soft-loss weight runs over {saved} steps, this run has {self.steps}. Set "
                f"`weighting_steps={saved}` to keep its course, or `weighting_steps={self.steps}` to change it."
            )
        self.keep_in(state)

    def state(self) -> dict[str, Any]:
        """Return what is saved."""
        return {"args": {}, "attributes": {"steps": self.steps}}
