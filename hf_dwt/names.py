"""Names that were mistyped."""

import difflib
from collections.abc import Iterable


def nearest(given: str, known: Iterable[str]) -> str | None:
    """The known name that a given one is most like; None if it is like none of them."""
    return next(iter(difflib.get_close_matches(given, sorted(known), n=1)), None)
