"""A student with and without its teacher, at equal steps and at equal cost, the teacher's included."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers.trainer_callback import TrainerState
from transformers.training_args import TrainingArguments

from hf_dwt.cache.keys import batches_fingerprint
from hf_dwt.checkpoints import has_whole_checkpoint, last_whole_checkpoint
from hf_dwt.collators import Collator, evaluation_collator
from hf_dwt.costs import StepCost
from hf_dwt.data import MaskingCollator
from hf_dwt.evaluation.reseeded import ReseededCollator
from hf_dwt.sampling import sampled_by
from hf_dwt.self_restoring import Clock, SelfRestoring
from hf_dwt.trainer import DWTTrainer

_RESULT = "run.json"
# In it, of a run that goes by them.
_EPOCHS = "num_train_epochs"
_MOST_EXAMPLES = 1_000


@dataclass(frozen=True)
class Point:
    """The held-out loss at one moment of a run.

    Attributes:
        step: Optimiser steps done.
        seconds: Wall-clock of training until then, evaluations left out.
        loss: Held-out hard loss, nats per position.
    """

    step: int
    seconds: float
    loss: float


@dataclass(frozen=True)
class HeldOut:
    """By what it is known whether two losses are of the same examples and masks.

    Attributes:
        examples: Digest of the first thousand that are looked at: tokens, masks and what is asked.
        mask_seed: Of the masks; None where nothing is masked.
        mask_probability: Likewise.
    """

    examples: str
    mask_seed: int | None
    mask_probability: float | None

    def differences(self, other: "HeldOut") -> list[str]:
        """Say in words what makes two losses ones of different things; nothing if they compare."""
        names = [name for name in ("mask_seed", "mask_probability") if vars(self)[name] != vars(other)[name]]
        told = [f"{name} {vars(self)[name]} against {vars(other)[name]}" for name in names]
        return told or ["the examples"] * (self.examples != other.examples)


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        name: What it is called in tables and plots.
        steps: Optimiser steps.
        loss: Final held-out hard loss, nats per position.
        accuracy: Final share of held-out positions that are predicted rightly.
        seconds: Wall-clock of training, evaluations left out.
        taught_steps: Steps in which the teacher was heard.
        curve: Held-out loss over the run.
        cache_passes: Forward passes of the teacher, each over as many examples as a step has, that its cache took: of
            the whole cache, even if other runs use it too. None if the taught steps asked it.
        num_probes: Times that the student was scored on the probe; the teacher was once.
        probe_size: Examples of the probe to those of a step.
        held_out: What the losses are of; None of a run that did not tell.
    """

    name: str
    steps: int
    loss: float
    accuracy: float
    seconds: float
    taught_steps: int
    curve: tuple[Point, ...]
    cache_passes: float | None = None
    num_probes: int = 0
    probe_size: float = 0.0
    held_out: HeldOut | None = None


class Stopwatch(SelfRestoring):
    """Notes the held-out loss over steps and wall-clock; a resumed run goes on where the checkpoint was written."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self._clock = Clock()

    @property
    def seconds(self) -> float:
        """Wall-clock of training so far, without evaluations."""
        return self._clock.seconds

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Start, from what the checkpoint noted if the run is resumed."""
        saved = self.saved_in(state)
        self.points = [Point(**point) for point in saved.get("points", [])]
        self._clock.start(saved.get("seconds", 0.0))
        self.keep_in(state)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: Any, metrics: dict[str, float], **_: Any
    ) -> None:
        """Note the loss; the time of the evaluation itself does not count."""
        self._clock.leave_out(metrics["eval_runtime"])
        point = Point(state.global_step, self.seconds, metrics["eval_loss"])
        self.points = [each for each in self.points if each.step != point.step] + [point]

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Stop."""
        self._clock.stop()

    def state(self) -> dict[str, Any]:
        """Return what is saved."""
        points = [asdict(point) for point in self.points]
        return {"args": {}, "attributes": {"seconds": self.seconds, "points": points}}


def carry_out(trainer: DWTTrainer, name: str, resume: bool = False) -> Run:
    """Train, evaluate, save the student and the result; with `resume` go on from the last checkpoint, or do nothing.

    Args:
        trainer: Its `output_dir` holds the student afterwards, and `run.json`.
        name: Of the run.
        resume: Take up an interrupted run, or the result of a finished one of as many steps or epochs.

    Raises:
        ValueError: If there is nothing to resume from.
    """
    folder = Path(trainer.args.output_dir)
    if resume and has_result(folder):
        finished = read_run(folder)
        if _is_as_long(folder, finished, trainer.args):
            return finished
    stopwatch = Stopwatch()
    trainer.add_callback(stopwatch)
    trainer.train(resume_from_checkpoint=last_whole_checkpoint(folder) if resume else None)
    metrics = trainer.evaluate()
    # Not as a user: that would push it.
    trainer.save_model(_internal_call=True)
    probed, step_size = trainer.course.record, _examples_of_step(trainer.args)
    teacher = trainer.teacher_facts()
    num_cached = None if teacher is None else teacher.num_cached
    run = Run(
        name=name,
        steps=trainer.state.global_step,
        loss=metrics["eval_loss"],
        accuracy=metrics["eval_accuracy"],
        seconds=stopwatch.seconds,
        taught_steps=trainer.course.record.num_taught_steps,
        curve=tuple(stopwatch.points),
        cache_passes=None if num_cached is None else num_cached / step_size,
        num_probes=probed.num_probes,
        probe_size=probed.num_probe_examples / step_size,
        held_out=held_out_by(trainer),
    )
    if trainer.args.should_save:
        content = {**asdict(run), _EPOCHS: None if _goes_by_steps(trainer.args) else trainer.args.num_train_epochs}
        (folder / _RESULT).write_text(json.dumps(content, indent=2))
    return run


def read_run(folder: Path) -> Run:
    """Read the result that `carry_out` left."""
    content = json.loads((folder / _RESULT).read_text())
    content.pop(_EPOCHS, None)
    held_out = content.get("held_out")
    nested = {"curve": tuple(Point(**point) for point in content["curve"])}
    return Run(**{**content, **nested, "held_out": held_out and HeldOut(**held_out)})


def held_out_by(trainer: DWTTrainer) -> HeldOut | None:
    """What a trainer's held-out losses are of; None if its data cannot be looked at, or masks belong to batches."""
    collator = evaluation_collator(trainer.data_collator, trainer.args.seed)
    batches = None if isinstance(collator, ReseededCollator) else sampled_by(trainer, trainer.eval_dataset, collator)
    return None if batches is None else held_out_of(batches, collator)


def held_out_of(batches: Iterable[Mapping[str, Any]], collator: Collator) -> HeldOut:
    """What losses are of.

    Args:
        batches: As `sampling.sampled_batches` gives them.
        collator: Makes them, for evaluation.
    """
    masks = (collator.seed, collator.mask_probability) if isinstance(collator, MaskingCollator) else (None, None)
    return HeldOut(batches_fingerprint(batches, _MOST_EXAMPLES), *masks)


def can_resume(folder: Path) -> bool:
    """Tell whether a run has left a whole checkpoint or its result here."""
    return has_whole_checkpoint(folder) or has_result(folder)


def forget_result(folder: Path) -> None:
    """Remove the result of an earlier run, which is about to be written over: else it would be taken for this one's."""
    (folder / _RESULT).unlink(missing_ok=True)


def has_result(folder: Path) -> bool:
    """Tell whether a run was carried out to its end here."""
    return (folder / _RESULT).is_file()


def operations(run: Run, cost: StepCost) -> int:
    """Floating-point operations of a run, by arithmetic, the teacher's included."""
    return run.steps * cost.standalone + _probe_operations(run, cost)[0] + teacher_operations(run, cost)


def teacher_operations(run: Run, cost: StepCost) -> int:
    """Those of the teacher's forward passes: in the taught steps or for the cache, and over the probe."""
    passes = run.taught_steps if run.cache_passes is None else run.cache_passes
    return round(passes * cost.teacher_forward) + _probe_operations(run, cost)[1]


def equal_cost_steps(distilled: Run, cost: StepCost) -> int:
    """How many steps the student alone takes for the operations of a distilled run."""
    return round(operations(distilled, cost) / cost.standalone)


def summary(distilled: Run, equal_steps: Run, equal_cost: Run | None = None) -> Sequence[str]:
    """Say in words what the teacher brought, whichever way it went."""
    lines = [f"At equal steps ({equal_steps.steps:,}): {_difference(distilled, equal_steps)}"]
    if equal_cost is not None:
        lines.append(f"At equal cost ({equal_cost.steps:,} steps alone): {_difference(distilled, equal_cost)}")
    return lines


def growth_summary(standalone: Run, grown: Run) -> str:
    """Say in words what growing brought over a random start, both alone and at equal steps."""
    gain, points = standalone.loss - grown.loss, 100 * (grown.accuracy - standalone.accuracy)
    verdict = "helped" if gain > 0 else "did not help"
    return f"Growing {verdict}, alone at equal steps: held-out loss {-gain:+.4f} nats, accuracy {points:+.2f} points."


def _is_as_long(folder: Path, finished: Run, args: TrainingArguments) -> bool:
    """Tell whether a finished run is as long as arguments ask for; one that does not tell its epochs is taken to be."""
    if _goes_by_steps(args):
        return bool(finished.steps == args.max_steps)
    return json.loads((folder / _RESULT).read_text()).get(_EPOCHS) in (None, args.num_train_epochs)


def _goes_by_steps(args: TrainingArguments) -> bool:
    return bool(args.max_steps > 0)


def _probe_operations(run: Run, cost: StepCost) -> tuple[int, int]:
    """Those of the student's and the teacher's passes over the probe."""
    student = run.num_probes * run.probe_size * cost.student_forward
    return round(student), round(bool(run.num_probes) * run.probe_size * cost.teacher_forward)


def _examples_of_step(args: TrainingArguments) -> int:
    return int(args.train_batch_size * args.gradient_accumulation_steps * args.world_size)


def _difference(distilled: Run, alone: Run) -> str:
    gain, points = alone.loss - distilled.loss, 100 * (distilled.accuracy - alone.accuracy)
    verdict = "helped" if gain > 0 else "did not help"
    return f"the teacher {verdict}: held-out loss {-gain:+.4f} nats, accuracy {points:+.2f} points."
