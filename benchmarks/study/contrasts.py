"""Which recipe is compared with which, factor by factor, on runs of the same seed."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from benchmarks.study.cells import TEACHERS, TUNING
from benchmarks.study.lines import CONSTANT, Choices, Line, by_seed
from benchmarks.study.statistics import Paired, holm, p_value, paired
from hf_dwt.finetuning.statistics import Summary, summarise

# Two runs cost the same if their operations differ by no more than this share.
SAME_COST = 0.02
# What hf_dwt does unless it is told otherwise. Constant weights are compared with it under "weighting".
DEFAULT_WEIGHTING, DEFAULT_START = "default weighting", "default start"
_BASES: dict[str, Callable[[Choices], Choices]] = {
    "the student alone, random start": Choices.baseline,
    "teaching": Choices.alone,
    "weighting": lambda choices: replace(choices, weighting=CONSTANT),
    "temperature": lambda choices: replace(choices, temperature=1.0),
    "start": Choices.from_random,
    DEFAULT_WEIGHTING: lambda choices: (
        choices if choices.weighting == CONSTANT else replace(choices, weighting="inheritance")
    ),
    DEFAULT_START: lambda choices: choices if choices.start == "random" else replace(choices, start="exact"),
}
ALONE = next(iter(_BASES))


@dataclass(frozen=True)
class Arm:
    """The runs of one recipe within a part.

    Attributes:
        name: In the study's YAML, with what tells it apart where several recipes share a name.
        choices: All but seeds and learning rate.
        lines: By seed.
    """

    name: str
    choices: Choices
    lines: dict[int, Line]

    @property
    def losses(self) -> dict[int, float]:
        """By seed."""
        return {seed: line.loss for seed, line in self.lines.items()}

    @property
    def rates(self) -> list[float]:
        """Learning rates, one unless something is odd."""
        return sorted({line.learning_rate for line in self.lines.values()})

    @property
    def operations(self) -> float:
        """The median over seeds."""
        return median(line.operations for line in self.lines.values())


@dataclass(frozen=True)
class Contrast:
    """An arm against the recipe that differs from it in one factor.

    Attributes:
        arm: Name.
        against: Name of the reference's arm and part.
        factor: In which they differ.
        paired: Over the seeds that both have; None if there are none.
        adjusted: p after Holm, within the factor and the part.
        flags: What must be known beside the numbers.
    """

    arm: str
    against: str
    factor: str
    paired: Paired | None
    adjusted: float | None = None
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Interaction:
    """What a teacher adds after growing, less what it adds to a random start.

    Attributes:
        arm: Of the student that is grown and taught.
        difference: Of the two differences, nats; above 0 the teacher adds less after growing.
        p: As in `statistics.Paired`.
        seeds: That all four corners have.
        same_model: Whether the teacher is also what the student was grown from.
        missing: Corners of the 2x2 without a run.
    """

    arm: str
    difference: Summary | None
    p: float | None
    seeds: tuple[int, ...]
    same_model: bool
    missing: tuple[str, ...]


def arms_of(lines: Iterable[Line]) -> list[Arm]:
    """Group the lines of one part."""
    groups: dict[tuple[str, Choices], list[Line]] = {}
    for line in lines:
        groups.setdefault((line.arm, line.choices), []).append(line)
    names = [name for name, _ in groups]
    return [
        Arm(name if names.count(name) == 1 else _told_apart(name, choices, groups), choices, by_seed(group))
        for (name, choices), group in groups.items()
    ]


def contrasts_of(part: str, lines: Sequence[Line]) -> list[Contrast]:
    """Compare each arm of a part with its references, p values adjusted within each factor."""
    arms = arms_of(line for line in lines if line.part == part)
    found = []
    for factor, base in _BASES.items():
        if factor == ALONE or _is_varied(factor, arms):
            family = [_contrast(arm, base(arm.choices), factor, lines) for arm in arms if _is_new(arm, factor, base)]
            # Of the other factors many crossings are never asked for.
            family = [each for each in family if each.paired is not None or factor == ALONE]
            adjusted = holm([each.paired.p if each.paired else None for each in family])
            found += [replace(each, adjusted=p) for each, p in zip(family, adjusted, strict=True)]
    return found


def reference_lines(wanted: Choices, part: str, lines: Iterable[Line]) -> dict[int, Line]:
    """The runs of a recipe, by seed; those of the same part come first. Runs that tuned do not count."""
    usable = [line for line in lines if line.part not in (TUNING, TEACHERS)]
    for choices in (wanted, replace(wanted, others="{}")):
        found = [line for line in usable if line.choices == choices]
        if found:
            return by_seed(sorted(found, key=lambda line: (line.part != part, line.id)))
    return {}


def at_equal_cost(arm: Arm, lines: Iterable[Line]) -> tuple[Paired | None, int] | None:
    """Compare an arm with the student alone that was annealed over as many operations; None if there is none.

    Returns:
        The comparison, and the steps of the run alone.
    """
    base = arm.choices.baseline()
    alone = [
        line
        for line in lines
        if line.part not in (TUNING, TEACHERS)
        and replace(line.choices, steps=base.steps) == base
        and abs(line.operations / arm.operations - 1) <= SAME_COST
    ]
    if not alone:
        return None
    steps = min((line for line in alone), key=lambda line: abs(line.operations - arm.operations)).choices.steps
    runs = by_seed(line for line in alone if line.choices.steps == steps)
    return paired(arm.losses, {seed: line.loss for seed, line in runs.items()}), steps


def cost_ratio(arm: Arm) -> float:
    """Operations of an arm to those of the student alone at equal steps."""
    return arm.operations / median(line.alone_operations for line in arm.lines.values())


def interactions_of(part: str, lines: Sequence[Line]) -> list[Interaction]:
    """Cross growing with teaching: one 2x2 for each grown and taught arm of a part."""
    found = []
    for arm in arms_of(line for line in lines if line.part == part):
        if arm.choices.teacher is None or arm.choices.start == "random":
            continue
        wanted = {
            "grown, alone": arm.choices.alone(),
            "random, taught": arm.choices.from_random(),
            "random, alone": arm.choices.baseline(),
        }
        corners = {name: reference_lines(choices, part, lines) for name, choices in wanted.items()}
        seeds = sorted(arm.lines.keys() & set.intersection(*(set(each) for each in corners.values())))
        values = [
            arm.losses[seed] - _expected({name: each[seed].loss for name, each in corners.items()}) for seed in seeds
        ]
        missing = tuple(name for name, each in corners.items() if not each)
        same = arm.choices.teacher == arm.choices.grown_from
        summary = summarise(values) if values else None
        found.append(Interaction(arm.name, summary, p_value(values) if values else None, tuple(seeds), same, missing))
    return found


def _expected(corners: dict[str, float]) -> float:
    """The loss that a grown and taught student would have if the two effects added up."""
    return corners["grown, alone"] + corners["random, taught"] - corners["random, alone"]


def _is_varied(factor: str, arms: Sequence[Arm]) -> bool:
    taught = [arm.choices for arm in arms if arm.choices.teacher is not None]
    if factor in ("teaching", "start"):
        return any(each.start != "random" for each in taught)
    if factor == DEFAULT_START:
        return len({arm.choices.start for arm in arms} - {"random"}) > 1
    return len({vars(each)[factor.removeprefix("default ")] for each in taught}) > 1


def _is_new(arm: Arm, factor: str, base: Callable[[Choices], Choices]) -> bool:
    """Whether a comparison is one at all, and is not the one with the student alone once more."""
    choices = arm.choices
    if base(choices) == choices:
        return False
    if factor in (ALONE, DEFAULT_START):
        return True
    return choices.teacher is not None and base(choices) != choices.baseline()


def _contrast(arm: Arm, wanted: Choices, factor: str, lines: Sequence[Line]) -> Contrast:
    part = next(iter(arm.lines.values())).part
    reference = {
        seed: line
        for seed, line in reference_lines(wanted, part, lines).items()
        if line.part == part or seed in arm.lines
    }
    if not reference:
        return Contrast(arm.name, "not run", factor, None, flags=("the reference was not run",))
    alike = {seed: line for seed, line in reference.items() if _compares(arm.lines.get(seed), line)}
    found = paired(arm.losses, {seed: line.loss for seed, line in alike.items()})
    against = sorted({line.arm if line.part == part else f"{line.part}/{line.arm}" for line in reference.values()})
    flags = [*_flags(arm, reference), *_unpaired(found)]
    if len(alike) < len(reference):
        flags.append(f"left out, since the held-out examples differ: {_seeds(reference.keys() - alike.keys())}")
    return Contrast(arm.name, ", ".join(against), factor, found, flags=tuple(flags))


def _compares(line: Line | None, reference: Line) -> bool:
    return line is None or line.held_out == reference.held_out


def _flags(arm: Arm, reference: dict[int, Line]) -> list[str]:
    flags = []
    mixed = {
        name
        for seed in arm.lines.keys() & reference.keys()
        for name, fingerprint in arm.lines[seed].fingerprints.items()
        if reference[seed].fingerprints.get(name, fingerprint) != fingerprint
    }
    flags += [f"pairs mix different weights under the teacher's name {name}" for name in sorted(mixed)]
    within: dict[str, set[str]] = {}
    for line in arm.lines.values():
        for name, fingerprint in line.fingerprints.items():
            within.setdefault(name, set()).add(fingerprint)
    flags += [f"seeds mix {len(each)} weights of {name}" for name, each in sorted(within.items()) if len(each) > 1]
    if len(arm.rates) > 1:
        flags.append(f"learning rates differ between seeds: {', '.join(f'{rate:g}' for rate in arm.rates)}")
    return flags


def _unpaired(found: Paired | None) -> list[str]:
    if found is None:
        return ["no seed was run with both"]
    return [f"left out, since only one of the two was run: {_seeds(found.unpaired)}"] if found.unpaired else []


def _seeds(seeds: Iterable[int]) -> str:
    found = sorted(seeds)
    return f"seed{'s' if len(found) > 1 else ''} {', '.join(map(str, found))}"


def _told_apart(name: str, choices: Choices, groups: Iterable[tuple[str, Choices]]) -> str:
    """A name with the choices in which its namesakes differ."""
    namesakes = [vars(each) for other, each in groups if other == name]
    differing = [key for key in vars(choices) if len({each[key] for each in namesakes}) > 1]
    details = [f"{key} {vars(choices)[key]}" for key in differing if vars(choices)[key] is not None]
    return f"{name} ({', '.join(details)})" if details else f"{name} (alone)"
