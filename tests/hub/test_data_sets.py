"""Data sets in the style of GLUE, served by the test Hub."""

import csv
import io

import datasets
import pytest
from hub_server import Hub


def test_a_task_is_loaded_by_name_and_split(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    rows = [{"sentence": "a fine film", "label": 1}, {"sentence": "a dull film", "label": 0}]
    hub.add_task("me/glue", "sst2", {"train": rows, "validation": rows[:1]})
    loaded = datasets.load_dataset("me/glue", "sst2")
    assert loaded["train"].to_list() == rows
    assert loaded["validation"].num_rows == 1
    (content,) = (c for path, c in hub.contents("me/glue").items() if path == "sst2/train.csv")
    assert list(csv.DictReader(io.StringIO(content.decode())))[1] == {"sentence": "a dull film", "label": "0"}
