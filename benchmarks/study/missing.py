"""Cells that the study consists of, and that nobody has run yet."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.study.config import Part
from benchmarks.study.lines import Line


def missing_cells(part: Part, lines: Sequence[Line], planned: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name the cells of a part that have no line.

    Args:
        part: Of the study.
        lines: All, as planned.
        planned: The `cell` of every line that there should be; without them an arm is expected with every seed.
    """
    own = [line for line in lines if line.part == part.name]
    known = {line.id for line in own}
    if planned:
        return [cell["id"] for cell in planned if cell["part"] == part.name and cell["id"] not in known]
    seeds = {(line.arm, line.seed) for line in own}
    named = [arm for arm in part.arms if not any(each == arm or each.startswith(f"{arm}/") for each, _ in seeds)]
    arms = sorted({arm for arm, _ in seeds}) + sorted(named)
    return [f"{part.name}/{arm}/seed-{seed}" for arm in arms for seed in part.seeds if (arm, seed) not in seeds]
