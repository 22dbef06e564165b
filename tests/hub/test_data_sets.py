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


def test_a_task_stays_when_another_one_is_added(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    tasks = {"sst2": [{"sentence": "fine", "label": 1}], "mrpc": [{"sentence1": "a", "sentence2": "b", "label": 0}]}
    for task, rows in tasks.items():
        hub.add_task("me/glue", task, {"train": rows, "validation": rows})
    assert sorted(datasets.get_dataset_config_names("me/glue")) == sorted(tasks)
    for task, rows in tasks.items():
        assert datasets.load_dataset("me/glue", task, split="validation").to_list() == rows
