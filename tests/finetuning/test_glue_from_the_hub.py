"""GLUE as a user has it: from the Hub, by the suite that comes with the package."""

from pathlib import Path

import datasets
import pytest
from hub_server import Hub

from hf_dwt import evaluate_suite


def test_glue_runs_end_to_end_from_the_hub(
    bert: str, glue: str, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    files = {str(path.relative_to(glue)): path.read_bytes() for path in Path(glue).rglob("*") if path.is_file()}
    hub.add("nyu-mll/glue", files, kind="dataset")
    report = evaluate_suite(bert, "glue", seeds=1, method="probe", output_dir=tmp_path / "hub")
    assert not report.failed
    assert len(report.cells) == 8
    local = evaluate_suite(bert, "glue", seeds=1, method="probe", output_dir=tmp_path / "folder", data=glue)
    assert [cell.metrics for cell in report.cells] == [cell.metrics for cell in local.cells]
    mnli = next(cell for cell in report.cells if cell.task == "mnli")
    assert mnli.metrics["validation_matched/accuracy"] > mnli.metrics["validation_mismatched/accuracy"]


def test_a_data_set_that_the_hub_does_not_have_fails_its_cells_alone(
    bert: str, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    report = evaluate_suite(bert, "glue", tasks=["rte"], seeds=1, method="probe", output_dir=tmp_path / "none")
    (cell,) = report.failed
    assert "nyu-mll/glue" in (cell.error or "")
    assert report.summary(bert, "rte") is None
