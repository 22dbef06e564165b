"""The report's headline: how much of the stand-alone student's budget each recipe needs."""

from collections.abc import Sequence
from math import inf
from statistics import fmean

from benchmarks.study import words
from benchmarks.study.crossing import SHARES, Crossing
from benchmarks.study.document import Block, Figure, Items, Paragraph, Table
from benchmarks.study.headline import AIM, ANCHORS, Headline, Recipe
from benchmarks.study.lines import Line
from benchmarks.study.plots import MOST_RECIPES, as_svg, draw_headline
from benchmarks.study.sections import arms_table
from benchmarks.study.tuning import families_of
from benchmarks.study.weakness import Standing


def headline_blocks(headline: Headline, lines: Sequence[Line], placed: Sequence[Standing]) -> list[Block]:
    """One part's headline: target, table of recipes, every run behind it, and a figure."""
    first = next(iter(headline.alone.values()))
    where = f"{first.choices.inputs} {first.choices.size}"
    name = f"{headline.part}-{first.choices.inputs}-{first.choices.size}"
    shown = headline.recipes[:MOST_RECIPES]
    losses = "; ".join(f"{recipe.name} {_mean_told(recipe.mean)}" for recipe in shown)
    alt = f"Final loss over the share of the budget, target {words.loss(headline.target)}. Share needed: {losses}."
    left_out = f" The {MOST_RECIPES} cheapest recipes are drawn." if len(headline.recipes) > MOST_RECIPES else ""
    caption = f"{alt}{left_out} Every point is the end of a run annealed to that budget; means over seeds."
    return [
        Paragraph(best_sentence(headline, where)),
        Paragraph(_target_text(headline, where, lines)),
        Table(f"Time to target, {where}", _COLUMNS, [_row(recipe) for recipe in headline.recipes]),
        Table("The same by seed, each with its own target", _SEED_COLUMNS, _seed_rows(headline)),
        Table(
            "Runs behind it: mean final loss at each share (n)", _run_columns(), [_runs(r) for r in headline.recipes]
        ),
        arms_table(headline.part, lines),
        Items([*_notes(headline), *_not_weak(headline, placed)]),
        Figure(name, caption, alt, as_svg(draw_headline(headline), name, alt)),
    ]


def best_sentence(headline: Headline, where: str) -> str:
    """The headline in words: the cheapest recipe, or that none is cheaper."""
    candidates = [each for each in headline.recipes if not each.choices.is_baseline]
    reached = [each for each in candidates if each.costs is not None and each.costs.operations < inf]
    if not reached:
        return f"**{where}: no recipe has reached the target within the stand-alone student's budget.**"
    best = reached[0]
    assert best.costs is not None
    training = best.costs.with_training
    told = "its teacher's training is not known" if training is None else f"{training:.3f} with its teacher's training"
    aim = "at or below" if best.costs.operations <= AIM else "above"
    sentence = (
        f"**{where}: the cheapest recipe, `{best.name}`, reaches the target at {words.times(best.costs.operations)} of "
        f"the stand-alone student's operations with the teacher already there ({told})**: {aim} the aim of {AIM:.2f}. "
        f"{best.num_reached} of {len(best.crossings)} seeds reach their own target."
    )
    return sentence + _best_with_training(reached) + _bounded(candidates)


def _bounded(recipes: Sequence[Recipe]) -> str:
    """That smaller budgets, at which a recipe might reach the target too, were not run."""
    named = [each.name for each in recipes if each.mean is not None and each.mean.missing is not None]
    if not named:
        return ""
    return f" **These are upper bounds**: smaller budgets of {', '.join(f'`{name}`' for name in named)} were not run."


def _best_with_training(recipes: Sequence[Recipe]) -> str:
    """The cheapest recipe if training the teacher counts."""
    known = [(each.costs.with_training, each.name) for each in recipes if each.costs and each.costs.with_training]
    if not known:
        return ""
    cost, name = min(known)
    return f" With the teacher's training included the cheapest is `{name}`, at {words.times(cost)}."


def anchors() -> Table:
    """What others report, which is not measured here."""
    rows = [
        [each.name, "-".join(f"{share:g}" for share in dict.fromkeys(each.share)), each.what, each.source]
        for each in ANCHORS
    ]
    return Table("Beside it, as others report it of their own settings", ("method", "share", "of", "source"), rows)


_COLUMNS = (
    *("recipe", "smallest share that was run", "interpolated share", "operations", "with the teacher's training"),
    *("time", "time with its training", "median share over seeds", "seeds that reach it"),
)
_SEED_COLUMNS = ("recipe, seed", "target", "smallest share", "interpolated", "operations", "with training")


def _run_columns() -> list[str]:
    return ["recipe", *(f"{share:g}" for share in SHARES)]


def _target_text(headline: Headline, where: str, lines: Sequence[Line]) -> str:
    rates = sorted({line.learning_rate for line in headline.alone.values()})
    told = _tuned(headline, rates, lines)
    return (
        f"Target: {words.loss(headline.target)} nats, the mean final loss of the {where} student alone, annealed over "
        f"all {headline.budget:,} steps (seeds {words.seeds(headline.alone)}; learning rate {words.rates(rates)}, "
        f"{told}). Costs are relative to that run's. Operations are counted by arithmetic, the teacher's forward "
        "passes, probes and caches included; time is steps times the median time of a step measured alone (`--times`)."
    )


def _tuned(headline: Headline, rates: Sequence[float], lines: Sequence[Line]) -> str:
    """Whether the student alone has the rate that tuning found for it, or for another size."""
    first = next(iter(headline.alone.values())).choices
    fitting = [each for each in families_of(lines) if (each.inputs, each.start) == (first.inputs, first.start)]
    best = {each.size: each.best for each in fitting if not each.is_taught}
    if first.size in best:
        return "which ended lowest in its tuning" if rates == [best[first.size]] else "not the best of its tuning"
    elsewhere = [size for size, rate in sorted(best.items()) if rates == [rate]]
    return f"which ended lowest in the tuning of {', '.join(elsewhere)}" if elsewhere else "not shown to be tuned"


def _row(recipe: Recipe) -> list[str]:
    costs = recipe.costs
    told = ["incomplete"] * 4
    if costs is not None:
        told = [words.times(each) for each in vars(costs).values()]
    reached = f"{recipe.num_reached} of {len(recipe.crossings)}"
    median = words.times(recipe.median_share) if recipe.crossings else words.NOT_RUN
    return [recipe.name, _share_told(recipe.mean), _mean_told(recipe.mean), *told, median, reached]


def _seed_rows(headline: Headline) -> list[list[str]]:
    rows = []
    for recipe in headline.recipes:
        for seed, found in recipe.crossings.items():
            costs = recipe.cost_by_seed[seed]
            numbers = [words.times(costs.operations), words.times(costs.with_training)]
            target = words.loss(headline.alone[seed].loss)
            rows.append([f"{recipe.name}, {seed}", target, _share_told(found), _mean_told(found), *numbers])
    return rows


def _runs(recipe: Recipe) -> list[str]:
    cells = []
    for share in SHARES:
        runs = recipe.runs.get(share, {})
        cells.append(f"{fmean(line.loss for line in runs.values()):.4f} ({len(runs)})" if runs else words.NOT_RUN)
    return [recipe.name, *cells]


def _share_told(found: Crossing | None) -> str:
    if found is None:
        return "incomplete"
    return words.times(found.share) if not found.is_reached else f"{found.share:g}"


def _mean_told(found: Crossing | None) -> str:
    if found is None:
        return "incomplete"
    return f"at most {found.share:g}" if found.at_most else words.times(found.interpolated)


def _notes(headline: Headline) -> list[str]:
    """What must be known beside the numbers: missing runs, seeds without a target, budgets off the grid."""
    notes = ["No crossing in mid-run counts: a budget is reached by the end of a run annealed to it."]
    for recipe in headline.recipes:
        if recipe.choices.is_baseline:
            continue
        if missing := _missing(recipe, headline):
            notes.append(f"`{recipe.name}`: not run: {missing}.")
        if recipe.unpaired:
            notes.append(
                f"`{recipe.name}`: left out for lack of a stand-alone run: seed {words.seeds(recipe.unpaired)}."
            )
        for found, whose in ((recipe.mean, "mean"), *((each, f"seed {s}") for s, each in recipe.crossings.items())):
            if found is not None and found.missing is not None:
                notes.append(
                    f"`{recipe.name}`, {whose}: {found.missing:g} was not run, so {found.share:g} stands as it is."
                )
            if found is not None and found.fails_above:
                shares = ", ".join(f"{share:g}" for share in found.fails_above)
                notes.append(f"`{recipe.name}`, {whose}: misses the target again at {shares}.")
    notes += [f"`{each}` has a budget that is no share of the grid and does not count." for each in headline.odd]
    return notes


def _not_weak(headline: Headline, placed: Sequence[Standing]) -> list[str]:
    """Models of the recipes that are no weak teachers, beside students of any size and budget on the same terms."""
    student = next(iter(headline.alone.values())).choices
    terms = student.inputs, student.dropout
    alike = [each for each in placed if (each.baseline.inputs, each.baseline.dropout) == terms]
    notes = []
    for recipe in headline.recipes:
        for name in dict.fromkeys((recipe.choices.teacher, recipe.choices.grown_from)):
            found = [each for each in alike if each.teacher.name == name and each.verdict != "weak"]
            notes += [
                f"`{recipe.name}`: `{name}` is {each.verdict} beside the {each.baseline.size} student over "
                f"{each.baseline.steps:,} steps, see below."
                for each in found
            ]
    return notes


def _missing(recipe: Recipe, headline: Headline) -> str:
    """Shares that were not run at all, and those that some seeds lack."""
    lacking: dict[float, list[int]] = {}
    for share, seed in recipe.missing(headline.alone):
        lacking.setdefault(share, []).append(seed)
    told = [
        f"{share:g}" if len(seeds) == len(headline.alone) else f"{share:g} of seed {words.seeds(seeds)}"
        for share, seeds in sorted(lacking.items())
    ]
    return "; ".join(told)
