"""What came out of each part, in a line or two: the report's first section."""

from collections.abc import Sequence

from benchmarks.study import words
from benchmarks.study.config import Part
from benchmarks.study.contrasts import ALONE, DEFAULT_START, DEFAULT_WEIGHTING, Contrast, contrasts_of
from benchmarks.study.document import Block, Items, Paragraph
from benchmarks.study.lines import Line

_ORDER = ("helps", "helps (not after Holm)", "no difference shown", "hurts (not after Holm)", "hurts", "no interval")
_FACTORS = {
    ALONE: "less the student alone from a random start",
    "teaching": "less the same start alone",
    DEFAULT_WEIGHTING: "less the same by `inheritance`, the default weights",
    DEFAULT_START: "less the same from the start `exact`, the default way of growing",
}


def findings(parts: Sequence[Part], lines: Sequence[Line]) -> list[Block]:
    """Which arms of each part help and hurt, by the intervals of their paired differences and by Holm.

    Args:
        parts: That compare recipes, in the order of their sections.
        lines: Of all parts.
    """
    told = []
    for part in parts:
        contrasts = contrasts_of(part.name, lines)
        for factor, against in _FACTORS.items():
            if outcomes := _outcomes([each for each in contrasts if each.factor == factor]):
                told.append(f"`{part.name}`, {against}: {outcomes}.")
    if not told:
        return [Paragraph("Nothing can be compared yet.")]
    explained = "Differences of final held-out loss at equal steps, nats per position, below 0 is better."
    return [Paragraph(explained), Items(told)]


def _outcomes(contrasts: Sequence[Contrast]) -> str:
    groups: dict[str, list[tuple[float, str]]] = {}
    for each in contrasts:
        if each.paired is not None:
            difference = each.paired.difference
            entry = (difference.mean, f"`{each.arm}` {words.difference(difference)}")
            groups.setdefault(words.judged(each.paired, each.adjusted), []).append(entry)
    return "; ".join(
        f"**{outcome}** {', '.join(entry for _, entry in sorted(groups[outcome]))}"
        for outcome in _ORDER
        if outcome in groups
    )
