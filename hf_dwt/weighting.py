"""How much the hard and the soft loss weigh over the course of training.

A policy is any callable from `Signals` to `Weights`; the built-in ones are frozen dataclasses whose fields are
their settings. They look at progress alone, but for `Handover`, which looks at the gap. `register_policy` adds one of
your own under a name.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Protocol, TypeVar

from hf_dwt.names import nearest
from hf_dwt.signals import Signals, Weights, check_weight


class Policy(Protocol):
    """Signature of a weighting policy."""

    def __call__(self, signals: Signals, /) -> Weights:
        """Return the weights of the next optimiser step."""


PolicyClass = TypeVar("PolicyClass", bound=Callable[..., Policy])

_policies: dict[str, Callable[..., Policy]] = {}


def register_policy(name: str) -> Callable[[PolicyClass], PolicyClass]:
    """Decorate a dataclass so that `weighting=name` builds it from the training arguments.

    Its fields are its settings: those named `soft_loss_weight`, `final_soft_loss_weight` or `hard_loss_weight` take
    the arguments of that name, all others come from `weighting_kwargs`. One with a field `gap_every` is shown the gap
    every so many steps, see `Signals`.

    A name of one's own may be registered again, as a notebook cell does that is run twice.

    Raises:
        TypeError: If what is decorated is not a dataclass.
        ValueError: If the name is that of a built-in policy.

    Example:
        >>> from dataclasses import dataclass
        >>> @register_policy("every_other")
        ... @dataclass(frozen=True)
        ... class EveryOther:
        ...     soft_loss_weight: float = 1.0
        ...     def __call__(self, signals):
        ...         return Weights(hard=1.0, soft=self.soft_loss_weight * (signals.step % 2))
        >>> make_policy("every_other", soft_loss_weight=3.0)(Signals(step=1, progress=0.1)).soft
        3.0
    """

    def register(policy: PolicyClass) -> PolicyClass:
        if not is_dataclass(policy):
            raise TypeError(f"A policy is a dataclass whose fields are its settings; {policy!r} is none.")
        taken = _policies.get(name)
        if taken is not None and taken.__module__ == __name__:
            raise ValueError(
                f"{name!r} is a built-in policy, {taken.__name__}: register {policy!r} under another name."
            )
        _policies[name] = policy
        return policy

    return register


def policy_names() -> list[str]:
    """Names that `make_policy` and the argument `weighting` accept."""
    return sorted(_policies)


def make_policy(name: str, /, **settings: Any) -> Policy:
    """Build a registered policy. A setting that is None takes the policy's own default.

    Raises:
        ValueError: If the name is not registered, a setting is not the policy's, or a value is out of range.

    Example:
        >>> make_policy("linear", soft_loss_weight=4.0, final_soft_loss_weight=1.0)(Signals(step=50, progress=0.5))
        Weights(hard=1.0, soft=2.5, for_good=False)
    """
    if name not in _policies:
        raise ValueError(f"`weighting` is {name!r}. {_suggest(str(name), policy_names())}")
    policy = _policies[name]
    known = [field.name for field in fields(policy)]  # type: ignore[arg-type]
    given = {key: value for key, value in settings.items() if value is not None}
    for key in given:
        if key not in known:
            raise ValueError(f"`weighting={name!r}` does not use `{key}`. {_suggest(key, known)}")
    return policy(**given)


def progress_at(step: int, horizon: int) -> float:
    """Share of `horizon` steps that are done before step number `step`, 0 to 1."""
    return min(step / max(horizon, 1), 1.0)


def uses_progress(policy: Policy) -> bool:
    """Tell whether a policy's weights may depend on the length of the run; only `Constant` is known not to."""
    return type(policy) is not Constant


@register_policy("constant")
@dataclass(frozen=True)
class Constant:
    """The same weights throughout, as in all of the paper's runs (1 is its "normal", 4 its "strong" weight).

    Reference:
        Lee et al., 2023, section 4.2.
    """

    soft_loss_weight: float = 1.0
    hard_loss_weight: float = 1.0

    def __post_init__(self) -> None:
        _check_pair(self.hard_loss_weight, self.soft_loss_weight)

    def __call__(self, signals: Signals) -> Weights:
        """Return the weights of the next optimiser step."""
        return Weights(self.hard_loss_weight, self.soft_loss_weight, for_good=self.soft_loss_weight == 0)


@register_policy("linear")
@dataclass(frozen=True)
class Linear:
    """The soft weight moves in a straight line from its first to its final value.

    Its settings, 4 to 1, are what the paper recommends: its authors believe that they join the fast start of a strong
    soft loss with the better end of a normal one, and did not measure it. Measured by this project's study, with a weak
    teacher, they end behind the student alone: the weight has to reach 0 in time.

    Reference:
        Lee et al., 2023, section 4.2.
    """

    soft_loss_weight: float = 4.0
    final_soft_loss_weight: float = 1.0
    hard_loss_weight: float = 1.0

    def __post_init__(self) -> None:
        _check_pair(self.hard_loss_weight, self.soft_loss_weight, self.final_soft_loss_weight)

    def __call__(self, signals: Signals) -> Weights:
        """Return the weights of the next optimiser step."""
        soft = _between(self.soft_loss_weight, self.final_soft_loss_weight, signals.progress)
        return Weights(self.hard_loss_weight, soft, for_good=soft == self.final_soft_loss_weight == 0)


@register_policy("cosine")
@dataclass(frozen=True)
class Cosine:
    """The soft weight follows half a cosine: slow at both ends, fast in the middle."""

    soft_loss_weight: float = 4.0
    final_soft_loss_weight: float = 1.0
    hard_loss_weight: float = 1.0

    def __post_init__(self) -> None:
        _check_pair(self.hard_loss_weight, self.soft_loss_weight, self.final_soft_loss_weight)

    def __call__(self, signals: Signals) -> Weights:
        """Return the weights of the next optimiser step."""
        turned = (1 - math.cos(math.pi * signals.progress)) / 2
        soft = _between(self.soft_loss_weight, self.final_soft_loss_weight, turned)
        return Weights(self.hard_loss_weight, soft, for_good=soft == self.final_soft_loss_weight == 0)


@register_policy("exponential")
@dataclass(frozen=True)
class Exponential:
    """The soft weight changes by the same factor in every step. It never reaches 0: both ends are above it."""

    soft_loss_weight: float = 4.0
    final_soft_loss_weight: float = 1.0
    hard_loss_weight: float = 1.0

    def __post_init__(self) -> None:
        _check_pair(self.hard_loss_weight, self.soft_loss_weight, self.final_soft_loss_weight)
        if min(self.soft_loss_weight, self.final_soft_loss_weight) == 0:
            raise ValueError("`weighting='exponential'` needs soft-loss weights above 0; use 'linear' to reach 0.")

    def __call__(self, signals: Signals) -> Weights:
        """Return the weights of the next optimiser step."""
        ratio = self.final_soft_loss_weight / self.soft_loss_weight
        return Weights(self.hard_loss_weight, self.soft_loss_weight * ratio**signals.progress)


@register_policy("step")
@dataclass(frozen=True)
class Step:
    """The soft weight jumps once, when progress reaches `at`."""

    soft_loss_weight: float = 4.0
    final_soft_loss_weight: float = 1.0
    hard_loss_weight: float = 1.0
    at: float = 0.5

    def __post_init__(self) -> None:
        _check_pair(self.hard_loss_weight, self.soft_loss_weight, self.final_soft_loss_weight)
        _check_share("at", self.at)

    def __call__(self, signals: Signals) -> Weights:
        """Return the weights of the next optimiser step."""
        if signals.progress < self.at:
            return Weights(self.hard_loss_weight, self.soft_loss_weight)
        return Weights(self.hard_loss_weight, self.final_soft_loss_weight, for_good=self.final_soft_loss_weight == 0)


@register_policy("wsd")
@dataclass(frozen=True)
class WarmupStableDecay:
    """The soft weight rises from 0 over `warmup`, stays, and falls to its final value over the last `decay`.

    Reference:
        Peng et al., 2025 (https://arxiv.org/abs/2410.16215), who found it ahead of a constant weight.
    """

    soft_loss_weight: float = 4.0
    final_soft_loss_weight: float = 1.0
    hard_loss_weight: float = 1.0
    warmup: float = 0.1
    decay: float = 0.2

    def __post_init__(self) -> None:
        _check_pair(self.hard_loss_weight, self.soft_loss_weight, self.final_soft_loss_weight)
        _check_share("warmup", self.warmup)
        _check_share("decay", self.decay)
        if self.warmup + self.decay > 1:
            raise ValueError(f"`warmup` + `decay` must be at most 1, got {self.warmup} + {self.decay}.")

    def __call__(self, signals: Signals) -> Weights:
        """Return the weights of the next optimiser step."""
        if signals.progress < self.warmup:
            soft = _between(0.0, self.soft_loss_weight, signals.progress / self.warmup)
        elif signals.progress <= 1 - self.decay:
            soft = self.soft_loss_weight
        else:
            # Counted from the end, so that rounding leaves exactly the final weight at progress 1.
            done = 1 - (1 - signals.progress) / self.decay
            soft = _between(self.soft_loss_weight, self.final_soft_loss_weight, done)
        return Weights(self.hard_loss_weight, soft, for_good=signals.progress >= 1 and soft == 0)


@register_policy("inheritance")
@dataclass(frozen=True)
class Inheritance:
    """Convex: the soft weight falls in a straight line to 0 at progress `end`, the hard weight is 1 minus it.

    Reference:
        Qin et al., 2022, Knowledge Inheritance (https://arxiv.org/abs/2105.13880), section 3.2. There the teacher
        guides 18 to 68 % of the steps, longer when it is better.
    """

    soft_loss_weight: float = 1.0
    end: float = 0.5

    def __post_init__(self) -> None:
        check_weight("soft_loss_weight", self.soft_loss_weight)
        if self.soft_loss_weight > 1:
            raise ValueError(
                "`weighting='inheritance'` divides 1 between the two losses: its `soft_loss_weight` must lie between 0 "
                f"and 1, got {self.soft_loss_weight}. Larger ones are for 'constant', 'linear' or 'handover'."
            )
        _check_share("end", self.end)

    def __call__(self, signals: Signals) -> Weights:
        """Return the weights of the next optimiser step."""
        if signals.progress >= self.end:
            return Weights(1.0, 0.0, for_good=True)
        soft = self.soft_loss_weight * (1 - signals.progress / self.end)
        return Weights(1 - soft, soft, for_good=soft == 0)


@register_policy("handover")
@dataclass(frozen=True)
class Handover:
    """The soft weight falls with the gap, never rises, and ends at 0 for good once the student has overtaken.

    It is the share of the reference gap that is left above the margin, times `soft_loss_weight`. During the
    learning rate's warm-up it stays where it is. A teacher that is not ahead by more than the margin when it would
    speak first does not speak at all.

    Attributes:
        soft_loss_weight: Weight to start from.
        hard_loss_weight: Weight of the hard loss.
        gap_every: Steps between two probes, >= 1. Default: 1 % of the run, at least 50.
        margin: Gap at which the student goes on alone, nats, >= 0.

    Reference:
        A hand-over at a cross-entropy threshold is what Busbridge et al., 2025 (https://arxiv.org/abs/2502.08606)
        suggest and did not build. The margin is about what Knowledge Inheritance (Qin et al., 2022) left: its student
        stood at perplexity 4.28 when the teacher of 4.18 was switched off.
    """

    soft_loss_weight: float = 1.0
    hard_loss_weight: float = 1.0
    gap_every: int | None = None
    margin: float = 0.02

    def __post_init__(self) -> None:
        _check_pair(self.hard_loss_weight, self.soft_loss_weight)
        if self.hard_loss_weight == 0:
            raise ValueError("`weighting='handover'` needs a `hard_loss_weight` above 0: the student goes on alone.")
        check_weight("margin", self.margin)
        every = self.gap_every
        if every is not None and (isinstance(every, bool) or not isinstance(every, int) or every < 1):
            raise ValueError(f"`gap_every` must be a whole number, at least 1, got {every!r}.")

    def __call__(self, signals: Signals) -> Weights:
        """Return the weights of the next optimiser step."""
        soft = self._soft(signals)
        return Weights(self.hard_loss_weight, soft, for_good=soft == 0)

    def _soft(self, signals: Signals) -> float:
        before = signals.previous_soft_loss_weight
        before = self.soft_loss_weight if before is None else before
        if signals.gap is None or signals.reference_gap is None:
            return before
        lead = signals.reference_gap - self.margin
        if lead <= 0:
            return 0.0
        if signals.warming_up or math.isnan(signals.gap):
            return before
        return min(before, self.soft_loss_weight * min(max((signals.gap - self.margin) / lead, 0.0), 1.0))


def _between(first: float, last: float, share: float) -> float:
    return first + (last - first) * share


def _check_pair(hard: float, *soft: float) -> None:
    check_weight("hard_loss_weight", hard)
    for name, weight in zip(("soft_loss_weight", "final_soft_loss_weight"), soft, strict=False):
        check_weight(name, weight)
    if hard == 0 and not all(soft):
        raise ValueError("`hard_loss_weight` and the soft-loss weight are both 0: nothing would be learnt.")


def _check_share(name: str, share: float) -> None:
    check_weight(name, share)
    if share > 1:
        raise ValueError(f"`{name}` must lie between 0 and 1, got {share}.")


def _suggest(given: str, known: list[str]) -> str:
    meant = nearest(given, known)
    hint = "" if meant is None else f"Did you mean {meant!r}? "
    return f"{hint}Known: {', '.join(known)}."
