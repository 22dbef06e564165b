"""The report's sections on the questions, the teachers and the learning rates."""

from collections.abc import Sequence
from math import inf
from statistics import fmean

from benchmarks.study import words
from benchmarks.study.cells import TEACHERS, TUNING
from benchmarks.study.contrasts import (
    ALONE,
    Arm,
    Contrast,
    Interaction,
    arms_of,
    at_equal_cost,
    contrasts_of,
    cost_ratio,
    interactions_of,
)
from benchmarks.study.document import Block, Figure, Items, Paragraph, Table
from benchmarks.study.lines import Line
from benchmarks.study.plots import as_svg, draw_contrasts, draw_curves, draw_quality
from benchmarks.study.statistics import verdict
from benchmarks.study.tuning import families_of
from benchmarks.study.weakness import MARGIN, Standing
from hf_dwt.finetuning.statistics import summarise


def answers(part: str, lines: Sequence[Line], standings: Sequence[Standing]) -> list[Block]:
    """All that the lines of a part say: its arms, their comparisons, what follows, and figures."""
    arms = arms_of(line for line in lines if line.part == part)
    if not arms:
        return [Paragraph("Nothing of this part was run yet.")]
    contrasts = contrasts_of(part, lines)
    blocks: list[Block] = [_arms_table(arms, lines)]
    if contrasts:
        blocks += [_contrasts_table(contrasts), Items([sentence(each) for each in contrasts])]
        blocks += _contrasts_figure(part, contrasts)
    if interactions := interactions_of(part, lines):
        blocks += [_interactions_table(interactions), Items([interaction_sentence(each) for each in interactions])]
    blocks += _quality(part, arms, contrasts, standings)
    teachers = sorted({name for line in lines if line.part == part for name in line.fingerprints})
    if teachers:
        blocks.append(Paragraph(conditional_on(part, lines)))
    return blocks


def sentence(contrast: Contrast) -> str:
    """One comparison in words; the verdict is the interval's."""
    found = contrast.paired
    pair = f"`{contrast.arm}` against `{contrast.against}` ({contrast.factor})"
    if found is None:
        return f"{pair}: not compared: {'; '.join(contrast.flags)}."
    told = words.judged(found, contrast.adjusted)
    flags = "".join(f" Beware: {flag}." for flag in contrast.flags)
    of_seeds = f"{len(found.seeds)} seed{'s' if len(found.seeds) > 1 else ''}"
    return f"{pair}: **{told}**, {words.difference(found.difference)} nats over {of_seeds}.{flags}"


def interaction_sentence(interaction: Interaction) -> str:
    """What a 2x2 says in words."""
    which = "the model that the student was grown from" if interaction.same_model else "another model than it grew from"
    if interaction.difference is None:
        lacking = ", ".join(interaction.missing) or "a seed that all four corners share"
        return f"`{interaction.arm}` (its teacher is {which}): not computed, for lack of: {lacking}."
    told = {
        "hurts": "the teacher adds less after growing than to a random start",
        "helps": "the teacher adds more after growing than to a random start",
        "no difference shown": "no interaction shown",
        "no interval": "one pair of seeds tells no interval",
    }[verdict(interaction.difference)]
    return f"`{interaction.arm}` (its teacher is {which}): **{told}**, {words.difference(interaction.difference)} nats."


def conditional_on(part: str, lines: Sequence[Line]) -> str:
    """Which trained teachers a part rests on: a result of one teacher's seed holds for that one."""
    models = [model for line in lines if line.part == part for model in (line.teacher, line.parent) if model]
    seeds = {model.name: model.seed for line in lines if (model := line.teacher) is not None}
    told = {model.name: _origin(seeds.get(model.name), model.training_operations) for model in models}
    named = [f"{name} ({origin})" for name, origin in sorted(told.items())]
    return f"Conditional on these models, one of each name: {', '.join(named)}."


def _origin(seed: int | None, training_operations: int | None) -> str:
    if training_operations is None:
        return "published"
    return "trained by the study" if seed is None else f"trained by the study, seed {seed}"


def places(standings: Sequence[Standing], lines: Sequence[Line]) -> list[Block]:
    """Each teacher's place on the curve of the student alone, and whether that makes it weak."""
    if not standings:
        return [Paragraph("No taught run has a stand-alone run of the same data, size, budget and seed yet.")]
    rule = (
        f"A teacher is weak only if the student alone overtakes it in the first half of its budget and "
        f"ends at least {MARGIN} nats better, beside every seed's run. It is overtaken at the first evaluation whose "
        "loss is at or below the teacher's on the same examples. Quality q is the share of the way from the unigram "
        "model (0) to the student alone (1) that the teacher has come, as `hf-dwt assess` tells it; it is "
        "not defined where the unigram model's loss was not measured, or the student alone did not beat it."
    )
    table = Table("Teachers beside the student alone", _PLACE_COLUMNS, [_place_row(each) for each in standings])
    return [Paragraph(rule), table, *_curves(standings, lines)]


def learning_rates(lines: Sequence[Line]) -> list[Block]:
    """The tuning table."""
    families = families_of(lines)
    if not families:
        return [Paragraph("No learning rate was tuned yet.")]
    rates = sorted({rate for family in families for rate in family.losses})
    rows = []
    for each in families:
        lacking = " (others were not run)" if len(each.losses) < len(rates) else ""
        edge = lacking or (" (at the edge of the grid)" if each.is_at_edge else "")
        taught = f"taught ({each.weighting})" if each.is_taught else "alone"
        name = f"{each.inputs} {each.size}, {each.start}, {taught}, {each.steps:,} steps"
        cells = [words.loss(each.losses[rate]) if rate in each.losses else words.NOT_RUN for rate in rates]
        rows.append([name, *cells, f"{each.best:g}{edge}", words.rates(each.used) or "none yet"])
    columns = ["family", *(f"{rate:g}" for rate in rates), "ended lowest", "used elsewhere"]
    return [
        Table("Final loss by learning rate, tuning seeds", columns, rows),
        Paragraph("Of a family that was tuned at several budgets the largest decides."),
    ]


_PLACE_COLUMNS = (
    *("teacher", "student", "teacher's loss", "overtaken at step", "share of the budget", "n"),
    *("behind the student's end (nats)", "q", "by the rule"),
)


def _place_row(standing: Standing) -> list[str]:
    base = standing.baseline
    steps = [inf if each.step is None else each.step for each in standing.places]
    shares = [inf if each.share is None else each.share for each in standing.places]
    return [
        standing.teacher.name,
        f"{base.inputs} {base.size}, {base.steps:,} steps" + (f", dropout {base.dropout:g}" if base.dropout else ""),
        words.loss(standing.teacher.loss),
        words.median_of(steps, ",.0f"),
        words.median_of(shares, ".2f"),
        str(len(standing.places)),
        f"{standing.behind:+.4f}",
        "not defined" if standing.quality is None else f"{standing.quality:.3f}",
        standing.verdict,
    ]


def _curves(standings: Sequence[Standing], lines: Sequence[Line]) -> list[Block]:
    """One figure for each data set and size, at its largest budget without dropout."""
    blocks: list[Block] = []
    groups: dict[tuple[str, str], list[Standing]] = {}
    for each in standings:
        if not each.baseline.dropout:
            groups.setdefault((each.baseline.inputs, each.baseline.size), []).append(each)
    for (inputs, size), group in sorted(groups.items()):
        budget = max(each.baseline.steps for each in group)
        shown = [each for each in group if each.baseline.steps == budget]
        shown = sorted(shown, key=lambda each: each.level)[:_MOST_TEACHERS]
        base = shown[0].baseline
        seeds = {place.seed for each in shown for place in each.places}
        fitting = [line for line in lines if line.choices == base and line.part not in (TUNING, TEACHERS)]
        alone = [line for line in fitting if line.seed in seeds]
        taught = {each.teacher.name: _first_arm(each, lines) for each in shown}
        name = f"curves-{inputs}-{size}"
        ends = ", ".join(f"{each.teacher.name} at {words.loss(each.level)}" for each in shown)
        alt = f"Held-out loss of the {size} student on {inputs} over {budget} steps; its teachers' levels: {ends}."
        caption = (
            f"{alt} Mean over seeds; lines through markers are students with the teacher whose level is alike. All of "
            "it on the examples of the curves; the table's losses are of the whole test set."
        )
        blocks.append(Figure(name, caption, alt, as_svg(draw_curves(alone, taught, shown), name, alt)))
    return blocks


_MOST_TEACHERS = 4


def _first_arm(standing: Standing, lines: Sequence[Line]) -> list[Line]:
    """The runs of the first recipe, by its name, in which a teacher teaches this student from a random start."""
    fitting = [line for line in lines if line.choices.teacher == standing.teacher.name and line.part != TUNING]
    own = [line for line in fitting if line.choices.baseline() == standing.baseline and line.choices.start == "random"]
    return [line for line in own if line.choices == own[0].choices and line.part == own[0].part]


def _arms_table(arms: Sequence[Arm], lines: Sequence[Line]) -> Table:
    columns = ("arm", "loss", "sd", "n", "seeds", "learning rate", "cost at equal steps", "at equal cost", "clipped")
    return Table("Arms: final held-out loss (nats per position)", columns, [_arm_row(each, lines) for each in arms])


def _arm_row(arm: Arm, lines: Sequence[Line]) -> list[str]:
    found, cost = summarise(list(arm.losses.values())), f"x{cost_ratio(arm):.3f}"
    counted = [line.clipped for line in arm.lines.values() if line.clipped is not None]
    clipped = words.percent(fmean(counted)) if counted else "not counted"
    figures = [words.loss(found.mean), words.spread(found), str(found.num_seeds), words.seeds(arm.lines)]
    return [arm.name, *figures, words.rates(arm.rates), cost, _equal_cost(arm, lines), clipped]


def arms_table(part: str, lines: Sequence[Line]) -> Table:
    """The arms of a part."""
    return _arms_table(arms_of(line for line in lines if line.part == part), lines)


def _equal_cost(arm: Arm, lines: Sequence[Line]) -> str:
    if arm.choices.is_baseline:
        return "is the stand-alone run"
    found = at_equal_cost(arm, lines)
    if found is None:
        return "no stand-alone run was annealed to this cost"
    compared, steps = found
    if compared is None:
        return f"{words.NOT_RUN} with the same seeds"
    told = f"{words.difference(compared.difference)} against {steps:,} steps alone"
    return f"{verdict(compared.difference)}: {told}"


def _contrasts_table(contrasts: Sequence[Contrast]) -> Table:
    columns = ("arm", "against", "factor", "difference (nats)", "ratio", "n", "p", "p, Holm", "verdict")
    return Table("Paired differences at equal steps, 95 % t intervals", columns, [_contrast_row(c) for c in contrasts])


def _contrast_row(contrast: Contrast) -> list[str]:
    head, found = [contrast.arm, contrast.against, contrast.factor], contrast.paired
    if found is None:
        return [*head, words.NOT_RUN, "-", "0", "-", "-", words.NOT_RUN]
    numbers = [words.difference(found.difference), words.ratio(found.log_ratio), str(len(found.seeds))]
    flag = " (flagged below)" if contrast.flags else ""
    judged = words.judged(found, contrast.adjusted) + flag
    return [*head, *numbers, words.p(found.p), words.p(contrast.adjusted), judged]


def _contrasts_figure(part: str, contrasts: Sequence[Contrast]) -> list[Block]:
    known = [each for each in contrasts if each.paired is not None]
    if not known:
        return []
    name = f"differences-{part}"
    told = "; ".join(f"{each.arm} {words.judged(each.paired, each.adjusted)}" for each in known)
    alt = f"Differences of held-out loss with 95 % intervals, part {part}: {told}."
    caption = (
        "Differences of held-out loss with 95 % t intervals. Filled circle: helps; cross: hurts; open: neither shown."
    )
    return [Figure(name, caption, alt, as_svg(draw_contrasts(known), name, alt))]


def _interactions_table(interactions: Sequence[Interaction]) -> Table:
    columns = ("grown and taught", "teacher is", "interaction (nats)", "n", "p", "lacking")
    rows = [
        [
            each.arm,
            "what it grew from" if each.same_model else "another model",
            words.NOT_RUN if each.difference is None else words.difference(each.difference),
            str(len(each.seeds)),
            words.p(each.p),
            ", ".join(each.missing) or "nothing",
        ]
        for each in interactions
    ]
    return Table("Growth x teaching: (grown, taught - grown, alone) - (random, taught - random, alone)", columns, rows)


def _quality(
    part: str, arms: Sequence[Arm], contrasts: Sequence[Contrast], standings: Sequence[Standing]
) -> list[Block]:
    """Where several teachers teach from a random start with the same weights: what each brings over its quality."""
    by_arm = {arm.name: arm for arm in arms if arm.choices.teacher is not None and arm.choices.start == "random"}
    placed = {(each.teacher.name, each.baseline): each for each in standings}
    groups: dict[str, list[tuple[Contrast, Standing]]] = {}
    for contrast in contrasts:
        arm = by_arm.get(contrast.arm)
        if contrast.factor != ALONE or arm is None or contrast.paired is None:
            continue
        standing = placed.get((str(arm.choices.teacher), arm.choices.baseline()))
        if standing is not None:
            groups.setdefault(str(arm.choices.weighting), []).append((contrast, standing))
    several = {
        weighting: points
        for weighting, points in sorted(groups.items())
        if len({standing.teacher.name for _, standing in points}) > 1
    }
    return [block for weighting, points in several.items() for block in _along_quality(part, weighting, points)]


def _along_quality(part: str, weighting: str, points: Sequence[tuple[Contrast, Standing]]) -> list[Block]:
    has_quality = all(standing.quality is not None for _, standing in points)
    label = "quality q of the teacher" if has_quality else "nats that the teacher is behind the student alone"
    along = [(standing.quality if has_quality else standing.behind) or 0.0 for _, standing in points]
    drawn = [(each.teacher.name, place, contrast) for (contrast, each), place in zip(points, along, strict=True)]
    name = f"quality-{part}-{weighting.replace(' ', '-')}"
    told = "; ".join(f"{teacher} at {place:.3f}: {words.judged(c.paired, c.adjusted)}" for teacher, place, c in drawn)
    over = "quality q" if has_quality else "distance behind the student"
    alt = f"What each teacher brings over its {over}, weights {weighting}: {told}."
    figure = Figure(name, f"{alt} 95 % t intervals.", alt, as_svg(draw_quality(drawn, label), name, alt))
    return [Paragraph(f"By teacher quality, weights {weighting}: {threshold(points)}."), figure]


def threshold(points: Sequence[tuple[Contrast, Standing]]) -> str:
    """The qualities at which a teacher was shown to help and to hurt, in q and in nats behind the student alone."""
    told = []
    for outcome in ("helps", "hurts", "no difference shown"):
        found = [
            standing
            for contrast, standing in points
            if contrast.paired and verdict(contrast.paired.difference) == outcome
        ]
        if not found:
            told.append(f"'{outcome}' came out for no teacher")
            continue
        qualities = sorted(each.quality for each in found if each.quality is not None)
        in_q = f"q from {qualities[0]:.3f} to {qualities[-1]:.3f}, " if qualities else ""
        behind = sorted(each.behind for each in found)
        told.append(
            f"'{outcome}' for teachers of {in_q}{behind[0]:+.3f} to {behind[-1]:+.3f} nats behind the student alone"
        )
    return "; ".join(told)
