"""A run that hands over; as a script it kills itself in the step after the one of one's choice."""

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tiny_runs import arguments, build, examples, make_teacher, tokenizer
from transformers import TrainerCallback

from hf_dwt import DWTTrainer, Signals, Weights, register_policy

NUM_STEPS = 20
# Found by running it; the tests check that it is so.
RELEASED_BEFORE = 14


@register_policy("follows")
@dataclass(frozen=True)
class Follows:
    """Looks at the gap and does nothing about it."""

    gap_every: int | None = None
    soft_loss_weight: float = 1.0

    def __call__(self, signals: Signals) -> Weights:
        assert signals.gap is not None or signals.step == 0
        return Weights(1.0, self.soft_loss_weight)


def make_trainer(folder: Path, **settings: Any) -> DWTTrainer:
    """A trainer with dropout and AdamW whose student overtakes its teacher, with a probe every other step."""
    names = {"model", "teacher", "train_dataset", "eval_dataset", "data_collator", "callbacks"} & settings.keys()
    ours = {name: settings.pop(name) for name in names}
    ours = {"model": build("masked"), "teacher": make_teacher(), "train_dataset": examples(), **ours}
    plain = {"optim": "adamw_torch", "learning_rate": 2e-2, "logging_steps": 1, "max_steps": NUM_STEPS}
    plain |= {"weighting": "handover", "weighting_kwargs": {"gap_every": 2, "margin": 0.1}}
    plain |= {"save_strategy": "steps", "save_steps": 99}
    return DWTTrainer(args=arguments(folder, **{**plain, **settings}), processing_class=tokenizer(), **ours)


class Dies(TrainerCallback):
    """Ends this process without any clean-up within a step."""

    def __init__(self, after: int) -> None:
        self.after = after

    def on_pre_optimizer_step(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
        if state.global_step == self.after:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    torch.set_num_threads(1)
    last_step = int(sys.argv[2])
    make_trainer(Path(sys.argv[1]), save_steps=last_step, callbacks=[Dies(last_step)]).train()
