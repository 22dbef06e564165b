"""How much of the stand-alone student's cost a recipe needs for the same held-out loss, its teacher included."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from statistics import fmean, median
from typing import Any

from benchmarks.study.cells import TEACHERS, TUNING
from benchmarks.study.costs import Clock, mean, training_operations
from benchmarks.study.crossing import SHARES, Crossing, crossing, share_of
from benchmarks.study.lines import Choices, Line, StepTime, by_seed

AIM = 0.40


@dataclass(frozen=True)
class Anchor:
    """What others report of their methods.

    Attributes:
        name: Of the method.
        share: Of the baseline's cost, as they count it.
        what: That is a share of.
        source: Where they say so.
    """

    name: str
    share: tuple[float, float]
    what: str
    source: str


ANCHORS = (
    Anchor("HyperCloning", (0.25, 0.5), "training time", "Samragh et al., 2024, https://arxiv.org/abs/2409.12903"),
    Anchor("bert2BERT", (0.55, 0.55), "compute", "Chen et al., ACL 2022, https://arxiv.org/abs/2110.07143"),
    Anchor(
        "Knowledge Inheritance",
        (0.57, 0.57),
        "steps, by GLUE",
        "Qin et al., NAACL 2022, https://arxiv.org/abs/2105.13880",
    ),
    Anchor("G_stack", (0.65, 0.65), "tokens", "Du et al., 2024, https://arxiv.org/abs/2405.15319"),
)


@dataclass(frozen=True)
class Costs:
    """What a crossing costs, relative to the stand-alone student's whole budget; inf if the target is not reached.

    Attributes:
        operations: The teacher already there.
        with_training: The training of the teacher, and of the model that it is grown from, included; None if unknown.
        time: Steps times the time of a step measured alone; None where that was not measured.
        time_with_training: Likewise, with the steps that the teacher took.
    """

    operations: float
    with_training: float | None
    time: float | None
    time_with_training: float | None


@dataclass(frozen=True)
class Recipe:
    """A candidate, its runs at all budgets.

    Attributes:
        name: Of the arm.
        choices: With the steps of the full budget.
        runs: By share, then by seed.
        mean: The crossing of the mean loss with the mean target, over the shares that all seeds have; None if there is
            no such share.
        crossings: By seed, each with its own target.
        costs: Of the mean's crossing.
        cost_by_seed: Of the crossings.
    """

    name: str
    choices: Choices
    runs: Mapping[float, Mapping[int, Line]]
    mean: Crossing | None
    crossings: Mapping[int, Crossing]
    costs: Costs | None
    cost_by_seed: Mapping[int, Costs]

    @property
    def num_reached(self) -> int:
        """Seeds that reach their target."""
        return sum(each.is_reached for each in self.crossings.values())

    @property
    def median_share(self) -> float:
        """Over all seeds, interpolated; one that does not reach its target counts as inf."""
        return median(each.interpolated for each in self.crossings.values()) if self.crossings else inf

    @property
    def median_cost(self) -> float:
        """Operations relative to the stand-alone's, the teacher already there; over all seeds."""
        return median(each.operations for each in self.cost_by_seed.values()) if self.cost_by_seed else inf

    @property
    def unpaired(self) -> list[int]:
        """Seeds that the stand-alone student lacks: they have no target, and are left out."""
        return sorted({seed for each in self.runs.values() for seed in each} - self.crossings.keys())

    def missing(self, seeds: Iterable[int]) -> list[tuple[float, int]]:
        """Shares and seeds that were not run."""
        return [(share, seed) for seed in seeds for share in SHARES if seed not in self.runs.get(share, {})]


@dataclass(frozen=True)
class Headline:
    """Time-to-target of one part.

    Attributes:
        part: Of the study.
        alone: The stand-alone runs over the whole budget, by seed.
        recipes: Candidates, the cheapest first.
        odd: Runs of the part whose budget is no share of the grid.
    """

    part: str
    alone: Mapping[int, Line]
    recipes: tuple[Recipe, ...]
    odd: tuple[str, ...]

    @property
    def target(self) -> float:
        """Mean over the seeds, nats."""
        return fmean(line.loss for line in self.alone.values())

    @property
    def budget(self) -> int:
        """Steps."""
        return next(iter(self.alone.values())).choices.steps


def parts_of_headlines(lines: Iterable[Line], planned: Iterable[Mapping[str, Any]] = ()) -> set[str]:
    """Names of the parts that ask for several budgets of one student: those that tune or train teachers do not count.

    Args:
        lines: All.
        planned: The `cell` of every line that there should be.
    """
    budgets: dict[tuple[str, str, str], set[int]] = {}
    for line in lines:
        budgets.setdefault((line.part, line.choices.inputs, line.choices.size), set()).add(line.choices.steps)
    for cell in planned:
        budgets.setdefault((cell["part"], cell["inputs"], cell["size"]), set()).add(cell["steps"])
    return {part for (part, _, _), steps in budgets.items() if len(steps) > 1} - {TUNING, TEACHERS}


def headlines_of(part: str, lines: Sequence[Line], times: Sequence[StepTime] = ()) -> list[Headline]:
    """Compute the time-to-target ratios of a part, one headline for each data set and size.

    Args:
        part: Its own lines are the candidates' runs.
        lines: All; the stand-alone runs may belong to another part.
        times: Of steps, measured alone.
    """
    own = [line for line in lines if line.part == part]
    whole: dict[Choices, int] = {}
    for line in lines:
        if line.choices.is_baseline and line.part not in (TUNING, TEACHERS):
            key = replace(line.choices, steps=0)
            whole[key] = max(whole.get(key, 0), line.choices.steps)
    found = []
    for key in sorted({replace(line.choices.baseline(), steps=0) for line in own}, key=str):
        if key not in whole:
            continue
        wanted = replace(key, steps=whole[key])
        runs = [line for line in own if replace(line.choices.baseline(), steps=0) == key]
        seeds = {line.seed for line in runs}
        fitting = [line for line in lines if line.choices == wanted and line.part not in (TUNING, TEACHERS)]
        alone = by_seed(sorted(fitting, key=lambda line: (line.part != part, line.id)))
        if alone := {seed: line for seed, line in alone.items() if seed in seeds}:
            found.append(_headline(part, alone, runs, Clock(times, lines)))
    return found


def _headline(part: str, alone: Mapping[int, Line], own: Sequence[Line], clock: Clock) -> Headline:
    budget = next(iter(alone.values())).choices.steps
    groups: dict[Choices, list[Line]] = {}
    odd = []
    for line in {each.id: each for each in (*own, *alone.values())}.values():
        if share_of(line.choices.steps, budget) is None:
            odd.append(line.id)
        else:
            groups.setdefault(replace(line.choices, steps=budget), []).append(line)
    told_apart = [(choices, each) for choices, group in groups.items() for each in _told_apart(group)]
    recipes = [_recipe(choices, group, alone, clock) for choices, group in told_apart]
    ordered = sorted(recipes, key=_by_cost)
    return Headline(part, alone, tuple(ordered), tuple(odd))


def _recipe(choices: Choices, group: Sequence[Line], alone: Mapping[int, Line], clock: Clock) -> Recipe:
    budget = choices.steps
    runs = {share: by_seed(line for line in group if share_of(line.choices.steps, budget) == share) for share in SHARES}
    runs = {share: each for share, each in runs.items() if each}
    seeds = sorted(alone.keys() & {seed for each in runs.values() for seed in each})
    crossings, costs = {}, {}
    for seed in seeds:
        mine = {share: each[seed] for share, each in runs.items() if seed in each}
        crossings[seed] = crossing({share: line.loss for share, line in mine.items()}, alone[seed].loss)
        costs[seed] = _costs(crossings[seed], {share: [line] for share, line in mine.items()}, [alone[seed]], clock)
    # A mean over other seeds than the target's would compare unlike things: shares that lack a seed stay out of it.
    whole = {
        share: [each[seed] for seed in seeds]
        for share, each in runs.items()
        if seeds and all(seed in each for seed in seeds)
    }
    recipe = Recipe(_name(group), choices, runs, None, crossings, None, costs)
    if not whole:
        return recipe
    references = [alone[seed] for seed in seeds]
    losses = {share: fmean(line.loss for line in each) for share, each in whole.items()}
    found = crossing(losses, fmean(line.loss for line in references))
    return replace(recipe, mean=found, costs=_costs(found, whole, references, clock))


def _by_cost(recipe: Recipe) -> tuple[float, float, str]:
    return (inf if recipe.costs is None else recipe.costs.operations, recipe.median_cost, recipe.name)


def _told_apart(group: Sequence[Line]) -> list[list[Line]]:
    """Split runs of the same choices by their learning rates, if some have one budget and one seed."""
    if len({(line.choices.steps, line.seed) for line in group}) == len(group):
        return [list(group)]
    rates = sorted({line.learning_rate for line in group})
    return [[line for line in group if line.learning_rate == rate] for rate in rates]


def _name(group: Sequence[Line]) -> str:
    """Of the arm, without the budget at its end."""
    return min(re.sub(r"/(share|steps)-[0-9.]+$", "", line.arm) for line in group)


_NOT_REACHED = Costs(inf, inf, inf, inf)


def _costs(found: Crossing, runs: Mapping[float, Sequence[Line]], alone: Sequence[Line], clock: Clock) -> Costs:
    if not found.is_reached:
        return _NOT_REACHED
    base = fmean(line.operations for line in alone)
    operations = found.read_off({share: fmean(line.operations for line in each) / base for share, each in runs.items()})
    training = mean(training_operations(line) for line in runs[found.share])
    base_time = mean(clock.run(line) for line in alone)
    run_times = {share: mean(clock.run(line) for line in each) for share, each in runs.items()}
    known = {share: seconds for share, seconds in run_times.items() if seconds is not None}
    has_time = base_time is not None and len(known) == len(run_times)
    time = found.read_off(known) / base_time if has_time and base_time else None
    training_time = mean(clock.training(line) for line in runs[found.share])
    return Costs(
        operations,
        None if training is None else operations + training / base,
        time,
        None if time is None or training_time is None or not base_time else time + training_time / base_time,
    )
