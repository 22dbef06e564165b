"""What is known only after a student was trained and pushed: how the same student fares alone."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_dwt.publishing.card import CARD_FILE, CURVES_FILE, card_of
from hf_dwt.publishing.record import RECORD_FILE, write

_TOLD = ("name", "steps", "loss", "accuracy")


def add_comparison(folder: str | Path, twins: Sequence[Mapping[str, Any]], name: str) -> dict[str, Path]:
    """Put the results of the same student alone into the record beside a student, and write its card anew.

    Args:
        folder: Of the student; its record lies there.
        twins: Finished runs of the same student alone, each with `name`, `steps`, `loss` and `accuracy`.
        name: Of the student, for the card.

    Returns:
        The files that may have changed, by name.
    """
    folder = Path(folder)
    record = json.loads((folder / RECORD_FILE).read_text())
    # A finished run that is taken up once more, without its twins, has them still.
    record["baseline"] = record["baseline"] if not twins else [{key: twin[key] for key in _TOLD} for twin in twins]
    write(record, folder)
    has_curves = (folder / CURVES_FILE).is_file()
    (folder / CARD_FILE).write_text(card_of(record, name, has_curves=has_curves), encoding="utf-8")
    names = (CARD_FILE, RECORD_FILE, *([CURVES_FILE] if has_curves else []))
    return {each: folder / each for each in names}
