"""The course of a run's weights: what the policy has been shown, what it answered, and what that cost."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from typing import Any

from transformers.trainer_callback import TrainerControl, TrainerState
from transformers.training_args import TrainingArguments

from hf_dwt.arguments import DistillationArguments
from hf_dwt.probe import HeadOf, Probe
from hf_dwt.self_restoring import SelfRestoring
from hf_dwt.signals import Signals, Weights
from hf_dwt.weighting import Policy, progress_at

_SHARE_BETWEEN_PROBES = 0.01
_FEWEST_STEPS_BETWEEN_PROBES = 50
# Where the record tells of a course.
MILESTONES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Record:
    """What is kept in checkpoints: all that the next weight depends on, and the costs so far.

    Attributes:
        soft_loss_weight: Of the last step that began.
        teacher_loss: On the probe, nats; a constant, computed once.
        reference_gap: When the teacher spoke first, nats.
        gaps: Of the last two probes, nats.
        num_taught_steps: Steps in which the teacher was asked.
        num_probes: Times that the student was scored on the probe.
        num_probe_examples: In the probe.
        probe_seconds: Wall-clock of all probes, the teacher's included.
        teacher_seconds_per_example: Wall-clock of the teacher's pass over the probe.
    """

    soft_loss_weight: float | None = None
    teacher_loss: float | None = None
    reference_gap: float | None = None
    gaps: tuple[float, ...] = ()
    num_taught_steps: int = 0
    num_probes: int = 0
    num_probe_examples: int = 0
    probe_seconds: float = 0.0
    teacher_seconds_per_example: float = 0.0


class Course(SelfRestoring):
    """Asks the policy once per optimiser step, and shows it the gap if it follows that.

    Args:
        choices: Name the policy and its horizon.

    Attributes:
        record: What is kept in checkpoints.
    """

    def __init__(self, choices: DistillationArguments) -> None:
        self._choices, self._policy = choices, choices.policy()
        self.record = Record()
        self._begun: tuple[int, Weights] | None = None
        self._warmup_steps = 0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start anew, or from what the checkpoint holds.

        Raises:
            ValueError: If the policy fails at a milestone: else only the first record would ask there, while it saves.
        """
        # A hyperparameter search changes the arguments of a trainer that is there already.
        self._policy, self._begun = self._choices.policy(), None
        planned_weights(self._choices, state.max_steps, MILESTONES)
        self._warmup_steps = args.get_warmup_steps(state.max_steps)
        saved = self.saved_in(state)
        self.record = Record(**{**saved, "gaps": tuple(saved.get("gaps", ()))})
        self.keep_in(state)

    def state(self) -> dict[str, Any]:
        """Return what is saved."""
        return {"args": {}, "attributes": {**asdict(self.record), "gaps": list(self.record.gaps)}}

    def require_untaught(self, state: TrainerState) -> None:
        """Refuse to go on without a teacher where one was heard: record and card would say that there never was one.

        Raises:
            ValueError: If the checkpoint's run was taught.
        """
        num_taught = self.saved_in(state).get("num_taught_steps", 0)
        if num_taught:
            raise ValueError(
                f"The checkpoint's run learnt from a teacher in {num_taught} of its {state.global_step} steps, this "
                "one has no `teacher`. Pass its own, which is let go at once if it has no more to say; to go "
                "on without it, start a new run from the checkpoint's weights."
            )

    def weights(self, state: TrainerState) -> Weights:
        """Weights of the current step. They depend on step and record alone, which are the same on every rank."""
        step = state.global_step
        return self._begun[1] if self._begun is not None and self._begun[0] == step else self._ask(state)

    def begin_step(self, state: TrainerState) -> Weights:
        """Ask the policy for the weights of the step that begins, and count it if the teacher will be asked."""
        weights = self._ask(state)
        self._begun = state.global_step, weights
        taught = self.record.num_taught_steps + (weights.soft > 0)
        self.record = replace(self.record, soft_loss_weight=weights.soft, num_taught_steps=taught)
        return weights

    @property
    def follows_gap(self) -> bool:
        """Whether the policy is to be shown the gap."""
        return gap_interval(self._policy, 1) is not None

    def probe_is_due(self, state: TrainerState) -> bool:
        """Tell whether the student is to be scored before the step that begins."""
        every = gap_interval(self._policy, self._horizon(state))
        return every is not None and (self.record.reference_gap is None or state.global_step % every == 0)

    def look(self, probe: Probe, student: HeadOf, teacher: HeadOf) -> dict[str, float]:
        """Score the student, and the teacher the first time; returns what is to be logged.

        Args:
            probe: The same throughout a run.
            student: Its head for a batch and its positions, in evaluation mode.
            teacher: Likewise.
        """
        record = self.record
        if record.teacher_loss is None:
            score = probe.score(teacher)
            record = replace(
                record,
                teacher_loss=score.loss,
                probe_seconds=record.probe_seconds + score.seconds,
                teacher_seconds_per_example=score.seconds_per_example,
            )
        assert record.teacher_loss is not None
        score = probe.score(student)
        gap = score.loss - record.teacher_loss
        self.record = replace(
            record,
            gaps=(*record.gaps[-1:], gap),
            reference_gap=gap if record.reference_gap is None else record.reference_gap,
            num_probes=record.num_probes + 1,
            num_probe_examples=probe.num_examples,
            probe_seconds=record.probe_seconds + score.seconds,
        )
        return {"probe_loss": score.loss, "probe_gap": gap, "probe_seconds": self.record.probe_seconds}

    def handover_costs(self, state: TrainerState, args: TrainingArguments) -> dict[str, float]:
        """What the teacher took until it was let go, and what is saved from there on, by its pass over the probe.

        Returns:
            To be logged; the seconds are of a rank.
        """
        num_examples = args.train_batch_size * args.gradient_accumulation_steps
        per_step = num_examples * self.record.teacher_seconds_per_example
        return {
            "handover_step": state.global_step,
            "handover_teacher_seconds": per_step * self.record.num_taught_steps,
            "handover_saved_seconds": per_step * (state.max_steps - state.global_step),
            "handover_probe_seconds": self.record.probe_seconds,
        }

    def _ask(self, state: TrainerState) -> Weights:
        step, record = state.global_step, self.record
        return self._policy(
            Signals(
                step,
                progress_at(step, self._horizon(state)),
                gap=max(record.gaps, default=None),
                reference_gap=record.reference_gap,
                previous_soft_loss_weight=record.soft_loss_weight,
                warming_up=step < self._warmup_steps,
            )
        )

    def _horizon(self, state: TrainerState) -> int:
        return self._choices.weighting_steps or int(state.max_steps)


def planned_weights(choices: DistillationArguments, num_steps: int | None, shares: Sequence[float]) -> list[Weights]:
    """What the policy answers at some points of a run; of one that follows the gap, without having been shown any.

    Args:
        choices: Name the policy and its horizon.
        num_steps: Optimiser steps of the run; None if they are not known yet: the horizon is taken to be the run.
        shares: Of the run that is done, 0 to 1 each.

    Raises:
        ValueError: If the policy fails at one of them.
    """
    policy, num_steps = choices.policy(), num_steps or choices.weighting_steps or 1
    horizon = choices.weighting_steps or num_steps
    # One that follows the gap is shown one from its first step on: here it is asked as before that.
    follows_gap = gap_interval(policy, horizon) is not None
    steps = [0 if follows_gap else round(share * num_steps) for share in shares]
    progress = [min(share * num_steps / horizon, 1.0) for share in shares]
    return [_answer(policy, choices.weighting, Signals(*each)) for each in zip(steps, progress, strict=True)]


def _answer(policy: Policy, name: str, signals: Signals) -> Weights:
    try:
        return policy(signals)
    except Exception as error:
        raise ValueError(
            f"`weighting={name!r}` fails at progress {signals.progress:g}, with {type(error).__name__}: {error}. "
            "A policy has to answer for each progress from 0 to 1, these two included."
        ) from error


def gap_interval(policy: Policy, horizon: int) -> int | None:
    """Optimiser steps between two probes of the gap; None if the policy does not follow it.

    It does if it has a field `gap_every`; None there is 1 % of `horizon` steps, at least 50.
    """
    if not is_dataclass(policy) or "gap_every" not in [field.name for field in fields(policy)]:
        return None
    every: int | None = vars(policy)["gap_every"]
    return max(_FEWEST_STEPS_BETWEEN_PROBES, round(_SHARE_BETWEEN_PROBES * horizon)) if every is None else every
