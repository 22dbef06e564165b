"""What one process and each of two ranks compute alike; as a script it runs all cases and saves what came out."""

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import torch
from killed_handover import RELEASED_BEFORE
from tiny_runs import (
    KINDS,
    arguments,
    build,
    examples,
    labelled_examples,
    make_student,
    make_teacher,
    tokenizer,
    weights_of,
    without_dropout,
)
from transformers import PreTrainedModel, Trainer, TrainerCallback
from transformers.utils import logging

from hf_dwt import DWTTrainer, heads

# Around the step before which the teacher is let go.
RESUMED_FROM = tuple(f"checkpoint-{step}" for step in (RELEASED_BEFORE - 1, RELEASED_BEFORE, RELEASED_BEFORE + 1))

Case = Callable[[Path], dict[str, Any]]


def make_trainer(
    folder: Path, kind: str = "masked", *, trainer_class: type[DWTTrainer] = DWTTrainer, **settings: Any
) -> DWTTrainer:
    own = {"model", "teacher", "train_dataset", "eval_dataset", "callbacks", "compute_metrics"} & settings.keys()
    ours = {name: settings.pop(name) for name in own}
    ours = {"model": make_student(kind), "teacher": untrained_teacher(kind), "train_dataset": examples(), **ours}
    args = arguments(folder, **{"allow_bad_teacher": True, **settings})
    return trainer_class(args=args, processing_class=tokenizer(), **ours)


def untrained_teacher(kind: str = "masked", **config: Any) -> PreTrainedModel:
    """A teacher that has the very same weights in every process, which one that was trained there would not have."""
    return without_dropout(build(kind, hidden_size=12, num_layers=1, seed=2, **config))


def pair_that_often_agrees(kind: str) -> dict[str, PreTrainedModel]:
    """A teacher with opinions, and a student that often guesses what it does, but not always."""
    teacher, student = (untrained_teacher(kind, initializer_range=0.5) for _ in range(2))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return {"teacher": teacher, "model": student}


# Training


def uneven_examples(kind: str) -> datasets.Dataset:
    """Labelled examples, of which the first four of eight ask for little, the first two of masked ones for nothing."""
    order = [8 * start + index for start in range(3) for index in (0, 4, 1, 5, 2, 6, 3, 7)]
    return labelled_examples(kind).select(order)


def trained(
    folder: Path, kind: str, batch_size: int, accumulation: int = 1, trainer_class: type[DWTTrainer] = DWTTrainer
) -> dict[str, Any]:
    """Weights and logs of four steps, over the end of an epoch, in an order that does not depend on the ranks."""
    sizes = {"per_device_train_batch_size": batch_size, "gradient_accumulation_steps": accumulation, "max_steps": 4}
    order = {"train_sampling_strategy": "sequential", "logging_steps": 1}
    trainer = make_trainer(
        folder,
        kind,
        train_dataset=uneven_examples(kind),
        trainer_class=trainer_class,
        temperature=2.0,
        **sizes,
        **order,
    )
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    return {"weights": weights_of(trainer.model), "logs": logs, "num_ranks": trainer.accelerator.num_processes}


def trained_in_parts(folder: Path, **settings: Any) -> dict[str, Any]:
    """The same, with heads that are run at three positions at a time."""
    most = heads._MOST_LOGITS_ON_CPU
    heads._MOST_LOGITS_ON_CPU = 3 * make_student().config.vocab_size
    try:
        return trained(folder, **settings)
    finally:
        heads._MOST_LOGITS_ON_CPU = most


class WithoutFactor(DWTTrainer):
    """Forgets that the ranks' gradients are averaged."""

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        return super().compute_loss(*args, **kwargs) / self.accelerator.num_processes


class CountsOwnRank(DWTTrainer):
    """Takes the mean over the positions of its own rank."""

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        count = super()._get_num_items_in_batch(batch_samples, device)
        own = sum(len(self._positions_of(batch)) for batch in batch_samples)
        return torch.full_like(count, max(own, 1) * self.accelerator.num_processes)


# Handover


def handed_over(folder: Path) -> dict[str, Any]:
    """Weights and record of a run whose teacher is let go, and of runs resumed before, at and after that."""
    settings = {"weighting": "handover", "weighting_kwargs": {"gap_every": 2, "margin": 0.1}}
    settings |= {"max_steps": 18, "learning_rate": 0.02, "teacher": make_teacher()}
    settings |= {"optim": "adamw_torch", "per_device_train_batch_size": 4, "save_strategy": "steps", "save_steps": 1}
    runs: dict[str, Any] = {}
    for checkpoint in ("none", *RESUMED_FROM):
        trainer = make_trainer(folder, model=build("masked"), **settings)
        trainer.train(None if checkpoint == "none" else str(folder / checkpoint))
        logs = trainer.state.log_history
        runs[checkpoint] = {
            "weights": weights_of(trainer.model),
            "record": trainer.course.state()["attributes"],
            "released": [entry["handover_step"] for entry in logs if "handover_step" in entry],
            "gaps": [entry["probe_gap"] for entry in logs if "probe_gap" in entry],
        }
    return runs


# Evaluation


def share_of_right_guesses(prediction: Any) -> dict[str, float]:
    asked = prediction.label_ids != -100
    right = prediction.predictions.argmax(-1)[asked] == prediction.label_ids[asked]
    return {"right_guesses": float(right.mean())}


def evaluated(folder: Path, kind: str, *, with_logits: bool = False, drop_repeats: bool = True) -> dict[str, Any]:
    """Figures of 11 examples in batches of 4: with two ranks the last batch has 3 examples for 8 places."""
    rows = labelled_examples(kind, num=11) if with_logits else examples(num=11)
    settings = {"train_dataset": rows, "eval_dataset": rows, "per_device_eval_batch_size": 4, "temperature": 2.0}
    settings |= pair_that_often_agrees(kind)
    if with_logits:
        settings["compute_metrics"] = share_of_right_guesses
    trainer = make_trainer(folder, kind, **settings)
    if not drop_repeats:
        trainer.accelerator.gather_for_metrics = trainer.accelerator.gather
    metrics = trainer.evaluate()
    timed = ("runtime", "per_second", "preparation_time")
    return {name: value for name, value in metrics.items() if not name.endswith(timed)}


# Refusals


def refusal(trainer: DWTTrainer) -> dict[str, Any]:
    try:
        trainer.train()
    except (ValueError, FloatingPointError) as error:
        return {"error": f"{type(error).__name__}: {error}", "step": trainer.state.global_step}
    return {"error": None, "step": trainer.state.global_step}


def bad_teacher(folder: Path) -> dict[str, Any]:
    return refusal(make_trainer(folder, max_steps=3, allow_bad_teacher=False))


class BreaksOnLastRank(TrainerCallback):
    """Spoils the teacher of one rank after its first step."""

    def __init__(self, teacher: torch.nn.Module) -> None:
        self.teacher = teacher

    def on_step_end(self, args: Any, *_: Any, **__: Any) -> None:
        if args.process_index == args.world_size - 1:
            self.teacher.cls.predictions.bias[0] = float("nan")


def teacher_that_breaks_on_one_rank(folder: Path) -> dict[str, Any]:
    teacher = untrained_teacher()
    callbacks = [BreaksOnLastRank(teacher)]
    return refusal(make_trainer(folder, teacher=teacher, callbacks=callbacks, max_steps=3, logging_steps=1))


# Checkpoints


def resumed(folder: Path) -> dict[str, Any]:
    """Weights of an uninterrupted run, and of one that goes on from its second step; dropout on, AdamW, shuffled."""
    settings = {"optim": "adamw_torch", "learning_rate": 1e-2, "lr_scheduler_type": "linear", "max_steps": 5}
    settings |= {"per_device_train_batch_size": 4, "save_strategy": "steps", "save_steps": 2}
    weights = []
    for resume_from_checkpoint in (None, str(folder / "checkpoint-2")):
        trainer = make_trainer(folder, model=build("masked"), **settings)
        trainer.train(resume_from_checkpoint)
        weights.append(weights_of(trainer.model))
    return {"uninterrupted": weights[0], "resumed": weights[1]}


class Looks(TrainerCallback):
    """Notes which files a checkpoint has once its state is written, which makes it whole."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def on_save(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
        self.seen = {path.name for path in Path(args.output_dir, f"checkpoint-{state.global_step}").iterdir()}


class DoesNotWait(DWTTrainer):
    """Saves as `Trainer` does."""

    def _save_rng_state(self, output_dir: str) -> None:
        Trainer._save_rng_state(self, output_dir)


def saved_with_a_slow_rank(folder: Path, trainer_class: type[DWTTrainer] = DWTTrainer) -> dict[str, Any]:
    """Files that rank 0 sees when a checkpoint has become whole, while rank 1 takes its time to write its own."""
    looks, save_rng_state = Looks(), Trainer._save_rng_state

    def slow(trainer: Trainer, output_dir: str) -> None:
        if trainer.args.process_index == 1:
            time.sleep(1.0)
        save_rng_state(trainer, output_dir)

    trainer = make_trainer(
        folder, trainer_class=trainer_class, callbacks=[looks], max_steps=1, save_strategy="steps", save_steps=1
    )
    Trainer._save_rng_state = slow
    try:
        trainer.train()
    finally:
        Trainer._save_rng_state = save_rng_state
    return {"seen": looks.seen}


CASES: dict[str, Case] = {
    **{f"{kind} 4": partial(trained, kind=kind, batch_size=4) for kind in KINDS},
    **{f"{kind} 2x2": partial(trained, kind=kind, batch_size=2, accumulation=2) for kind in KINDS},
    **{f"{kind} in parts": partial(trained_in_parts, kind=kind, batch_size=4) for kind in KINDS},
    "without factor": partial(trained, kind="masked", batch_size=4, trainer_class=WithoutFactor),
    "counts own rank": partial(trained, kind="masked", batch_size=4, trainer_class=CountsOwnRank),
    **{f"{kind} evaluation": partial(evaluated, kind=kind) for kind in KINDS},
    **{f"{kind} evaluation with logits": partial(evaluated, kind=kind, with_logits=True) for kind in KINDS},
    "evaluation with repeats": partial(evaluated, kind="masked", drop_repeats=False),
    "bad teacher": bad_teacher,
    "teacher that breaks on one rank": teacher_that_breaks_on_one_rank,
    "resumed": resumed,
    "handed over": handed_over,
    "slow rank": saved_with_a_slow_rank,
    "slow rank, no waiting": partial(saved_with_a_slow_rank, trainer_class=DoesNotWait),
}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    logging.disable_progress_bar()
    rank = arguments(folder).process_index
    for name, case in CASES.items():
        torch.save(case(folder / name), folder / f"{name}.{rank}.pt")
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
