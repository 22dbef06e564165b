"""Runs made again elsewhere, beside those that were committed: are losses and conclusions the same?"""

from collections.abc import Sequence

from benchmarks.study import words
from benchmarks.study.cells import TEACHERS, TUNING
from benchmarks.study.contrasts import Arm, arms_of
from benchmarks.study.document import Block, Paragraph, Table
from benchmarks.study.lines import Choices, Line, by_seed
from benchmarks.study.statistics import Paired, paired
from hf_dwt.finetuning.statistics import Summary, summarise

_COLUMNS = (
    *("recipe", "loss here (seeds)", "committed: mean", "sd", "n"),
    *("less the student alone, here", "committed", "same side of 0"),
)


def repeated(lines: Sequence[Line], committed: Sequence[Line]) -> list[Block]:
    """Compare every recipe of `lines` with the committed runs of the same choices, whatever their seeds."""
    arms = {arm.choices: arm for arm in arms_of(_counted(lines))}
    known = [
        (arm, by_seed(line for line in _counted(committed) if line.choices == arm.choices)) for arm in arms.values()
    ]
    rows = [_row(arm, runs, lines, committed) for arm, runs in known if runs]
    if not rows:
        return [Paragraph("No recipe of these runs is among the committed ones.")]
    told = (
        "Recipes are the same but for their seeds. Losses may differ by what seeds and processors do to them; a "
        "conclusion holds where the difference from the student alone is on the same side of 0."
    )
    return [Paragraph(told), Table("Runs made again, and committed ones", _COLUMNS, rows)]


def _counted(lines: Sequence[Line]) -> list[Line]:
    return [line for line in lines if line.part not in (TUNING, TEACHERS)]


def _row(arm: Arm, runs: dict[int, Line], lines: Sequence[Line], committed: Sequence[Line]) -> list[str]:
    theirs = summarise([line.loss for line in runs.values()])
    here, there = (_gain(arm.choices, each) for each in (lines, committed))
    return [
        arm.name,
        f"{words.loss(summarise(list(arm.losses.values())).mean)} ({words.seeds(arm.lines)})",
        words.loss(theirs.mean),
        words.spread(theirs),
        str(theirs.num_seeds),
        *(words.NOT_RUN if each is None else words.difference(each) for each in (here, there)),
        "-" if here is None or there is None else "yes" if here.mean * there.mean > 0 else "NO",
    ]


def _gain(choices: Choices, lines: Sequence[Line]) -> Summary | None:
    """Loss less that of the student alone from a random start, of the same seeds; None of that student itself."""
    if choices.is_baseline:
        return None
    own, base = (
        {seed: line.loss for seed, line in by_seed(each for each in _counted(lines) if each.choices == wanted).items()}
        for wanted in (choices, choices.baseline())
    )
    found: Paired | None = paired(own, base)
    return None if found is None else found.difference
