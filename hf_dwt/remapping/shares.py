"""Where the entries of a student's parameters come from."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Shares:
    """Where the entries of some parameters come from; the three add up to 1.

    Attributes:
        copied: As they were, or multiplied by one factor.
        split: Shared out among the copies of a unit, or computed from several entries.
        new: Without a source.
    """

    copied: float
    split: float
    new: float

    def __str__(self) -> str:
        return f"{self.copied:.1%} copied, {self.split:.1%} split, {self.new:.1%} new"


def average(shares: Iterable[tuple[Shares, int]]) -> Shares:
    """The shares of several parameters together, each with its number of entries."""
    pairs = list(shares)
    total = sum(size for _, size in pairs)
    return Shares(
        sum(each.copied * size for each, size in pairs) / total,
        sum(each.split * size for each, size in pairs) / total,
        sum(each.new * size for each, size in pairs) / total,
    )
