"""The study run by its command line: on made-up molecules, in small, in processes of their own."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_study import TEACHER, content, part, write

from benchmarks.study.__main__ import main
from benchmarks.study.workers import usable_cores

ROOT = Path(__file__).parents[2]
TIMEOUT = 500


def started(folder: Path, *options: str) -> subprocess.Popen[str]:
    """The command, with its cache and its results in a folder."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "HF_HOME": str(folder / "hf")}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    command = [sys.executable, "-u", "-m", "benchmarks.study", "--output", str(folder / "results"), *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes)


def finished(folder: Path, *options: str) -> str:
    """What the command printed."""
    process = started(folder, *options)
    output, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, output + errors
    return output


def lines(folder: Path) -> dict[str, dict[str, Any]]:
    """Lines of results by their ids."""
    texts = [text for path in sorted((folder / "results").glob("*.jsonl")) for text in path.read_text().splitlines()]
    found = [json.loads(text) for text in texts]
    assert len({each["cell"]["id"] for each in found}) == len(found)
    return {each["cell"]["id"]: each for each in found}


def killed_after(folder: Path, count: int, how: signal.Signals, *options: str) -> tuple[int, str]:
    """Exit code and output of the command, ended when so many cells were done."""
    process = started(folder, *options)
    assert process.stdout is not None
    told = []
    while sum(" of " in text for text in told) < count:
        told.append(process.stdout.readline())
        assert told[-1], f"ended early: {told}"
    process.send_signal(how)
    # The pipe is closed when the last process that holds it has ended.
    rest, _ = process.communicate(timeout=TIMEOUT)
    return process.returncode, "".join(told) + rest


@pytest.mark.slow
@pytest.mark.timeout(800)
def test_a_smoke_run_that_is_killed_goes_on_where_it_was_and_ends_with_a_line_for_each_cell(tmp_path: Path) -> None:
    killed_after(tmp_path, 3, signal.SIGKILL, "--smoke")
    before = lines(tmp_path)
    assert len(before) >= 3
    output = finished(tmp_path, "--smoke", "--cores", "2")
    after = lines(tmp_path)
    assert {name: after[name] for name in before} == before
    assert not [name for name in before if f"] {name}: loss" in output], "run again"
    assert "not run" not in output
    listed = finished(tmp_path, "--smoke", "--list")
    states = [text for text in listed.splitlines() if " steps, rate " in text]
    assert len(states) > len(after), "some cells are of several parts"
    assert all("; done, loss " in text for text in states)
    parts = {each["cell"]["part"] for each in after.values()}
    assert {"teachers", "tuning", "quality", "weighting", "growth_and_teaching", "budgets", "confirmation"} <= parts
    assert_lines_tell_all(after)
    assert "[1 of" not in finished(tmp_path, "--smoke"), "nothing is left to run"


def assert_lines_tell_all(found: dict[str, dict[str, Any]]) -> None:
    keys = ["cell", "recipe", "run", "final", "teacher", "grown_from", "cost", "clipped", "fingerprint", "seconds"]
    keys += ["cores", "threads", "versions", "commit", "machine", "date"]
    weak = found["teachers/weak/seed-201"]
    for each in found.values():
        cell, cost = each["cell"], each["cost"]
        assert list(each) == keys
        assert (each["cores"], each["threads"], each["clipped"]) == (1, 1, 0)
        assert each["final"]["num_examples"] == 60
        assert len(each["run"]["curve"]) >= 2
        assert (each["teacher"] is None) == (cell["teacher"] is None)
        assert (each["grown_from"] is None) == (cell["start"] == "random")
        assert cost["operations"] == each["run"]["steps"] * cost["standalone_step"] + cost["teacher_operations"] or (
            cell["weighting"] == "handover"
        )
        assert each["run"]["steps"] == cell["steps"] == each["recipe"]["arguments"]["max_steps"]
        for model in (each["teacher"], each["grown_from"]):
            if model is not None and model["name"] == "weak":
                assert model["fingerprint"] == weak["fingerprint"]
                assert model["training_operations"] == weak["cost"]["operations"]
    albert = next(each["teacher"] for each in found.values() if each["cell"]["teacher"] == "albert")
    assert (albert["training_operations"], albert["seed"]) == (None, None)
    taught = next(each["teacher"] for each in found.values() if each["cell"]["teacher"] == "weak")
    assert taught["loss"] == weak["final"]["loss"]
    other = found["growth_and_teaching/grown-taught-by-another/seed-1"]
    assert (other["teacher"]["name"], other["grown_from"]["name"]) == ("weak_other", "weak")
    grown = [each for each in found.values() if each["grown_from"] is not None and each["teacher"] is None]
    assert grown
    for each in grown:
        assert each["run"]["taught_steps"] == each["cost"]["teacher_operations"] == 0


# In a study of a few cells


def test_what_is_missing_is_run_once_and_a_changed_cell_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(write(tmp_path))
    code, output = killed_after(tmp_path, 1, signal.SIGINT, config)
    assert code == 130, "stopped by Ctrl-C"
    assert "To go on:" in output
    assert f"--output {tmp_path / 'results'} {config}" in output
    finished(tmp_path, config)
    whole = lines(tmp_path)
    assert len(whole) == 5, "two teachers, and three cells of which one is of two parts"
    path = tmp_path / "results" / "second.jsonl"
    path.unlink()
    output = finished(tmp_path, config)
    assert "[1 of 1] second/grown/seed-1" in output
    again = lines(tmp_path)["second/grown/seed-1"]
    assert again["fingerprint"] == whole["second/grown/seed-1"]["fingerprint"]

    changed = content()["parts"]
    changed[0]["arms"]["taught"]["temperature"] = 2
    write(tmp_path, parts=changed)
    assert main([config, "--output", str(tmp_path / "results")]) == 2
    assert "`temperature` was 1.0, now 2.0" in capsys.readouterr().err


def test_cells_side_by_side_are_those_of_one_after_the_other_and_missing_ones_are_told(tmp_path: Path) -> None:
    parts = content()["parts"]
    one, two = tmp_path / "one", tmp_path / "two"
    outputs = []
    for folder, cores in ((one, 1), (two, 2)):
        folder.mkdir()
        config = str(write(folder, parts=parts))
        if cores == 1:
            outputs.append(finished(folder, config, "--only", "first"))
            assert set(lines(folder)) == {"first/alone/seed-1"}
        outputs.append(finished(folder, config, "--cores", str(cores)))
    assert "not run: first/taught/seed-1 (waits for its teacher: teachers/weak/seed-7)" in outputs[0]
    alone, beside = lines(one), lines(two)
    assert alone.keys() == beside.keys()
    for name, each in alone.items():
        ours, theirs = ({**line["run"], "seconds": 0, "curve": 0} for line in (each, beside[name]))
        assert (ours, each["final"], each["fingerprint"]) == (
            theirs,
            beside[name]["final"],
            beside[name]["fingerprint"],
        )
    assert ("Only 1 of 2 cores can be used" in outputs[-1]) == (len(usable_cores()) == 1)


def test_a_teacher_is_kept_with_its_line_and_else_trained_again_and_compared_with_it(tmp_path: Path) -> None:
    arms = {"taught": {"vary": {"teacher": ["weak", "other"]}}}
    config = str(write(tmp_path, parts=[part(arms=arms)]))
    finished(tmp_path, config, "--only", "teachers")
    shutil.rmtree(tmp_path / "cache" / "hf_dwt" / "tiny" / "teachers")
    shutil.rmtree(tmp_path / "results" / "teachers" / "other")
    output = finished(tmp_path, config)
    assert "teachers/weak/seed-7: trained again" not in output, "its weights are beside its line"
    assert "teachers/other/seed-8: trained again, the same weights" in output
    found = lines(tmp_path)
    assert len(found) == 4
    for name, seed in (("weak", 7), ("other", 8)):
        heard = found[f"part/taught/{name}/seed-1"]["teacher"]
        assert heard["fingerprint"] == found[f"teachers/{name}/seed-{seed}"]["fingerprint"]


def test_a_kept_teacher_of_another_recipe_is_not_taken(tmp_path: Path) -> None:
    arms = {"taught": {"teacher": "weak"}}
    finished(tmp_path, str(write(tmp_path, parts=[part(arms=arms)])), "--only", "teachers")
    shutil.rmtree(tmp_path / "cache" / "hf_dwt" / "tiny" / "teachers")
    (tmp_path / "results" / "teachers.jsonl").unlink()
    config = str(write(tmp_path, parts=[part(arms=arms)], teachers={"weak": {**TEACHER, "steps": 6, "seed": 7}}))
    output = finished(tmp_path, config)
    assert "] teachers/weak/seed-7: loss" in output
    assert (
        lines(tmp_path)["part/taught/seed-1"]["teacher"]["loss"]
        == lines(tmp_path)["teachers/weak/seed-7"]["final"]["loss"]
    )


def test_a_cell_that_fails_is_told_with_its_log_and_the_others_are_run(tmp_path: Path) -> None:
    arms = {"broken": {"arguments": {"per_device_train_batch_size": 0}}, "sound": {}}
    process = started(tmp_path, str(write(tmp_path, teachers={}, parts=[part(arms=arms)], defaults=sound_defaults())))
    output, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 1, output + errors
    assert "part/broken/seed-1 FAILED: " in output
    assert "not run: part/broken/seed-1 (failed)" in output
    (log,) = (tmp_path / "cache" / "hf_dwt" / "tiny" / "runs").glob("*.log")
    assert "Traceback" in log.read_text()
    assert set(lines(tmp_path)) == {"part/sound/seed-1"}


def sound_defaults() -> dict[str, Any]:
    return {key: each for key, each in content()["defaults"].items() if key != "grown_from"}


def test_two_processes_may_share_a_cell(tmp_path: Path) -> None:
    launch = f"{sys.executable} -m torch.distributed.run --standalone --nproc_per_node 2"
    config = write(tmp_path, teachers={}, parts=[part(arms={"alone": {}})], defaults=sound_defaults(), launch=launch)
    finished(tmp_path, str(config))
    (line,) = lines(tmp_path).values()
    assert line["cores"] == 2
    assert line["run"]["steps"] == 10


def test_step_times_are_of_each_model_alone_and_taught(tmp_path: Path) -> None:
    config = str(write(tmp_path))
    finished(tmp_path, config, "--only", "teachers")
    finished(tmp_path, config, "--times", "--only", "first", "second")
    rows = [json.loads(text) for text in (tmp_path / "results" / "times.jsonl").read_text().splitlines()]
    told = [(row["size"], row["teacher"], row["start"]) for row in rows]
    assert told == [("large", None, "random"), ("large", "weak", "random"), ("large", None, "exact")]
    assert all(row["seconds_per_step"] > 0 for row in rows)
    assert len(lines(tmp_path / "none")) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("parts: [", "is not YAML"),
        ("- a", "should be a mapping of sections"),
        ("inputs: {}\nsized: {}", "has no key `sized`"),
        (None, "There is no study"),
    ],
)
def test_a_wrong_file_is_an_error_of_one_line(
    text: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "wrong.yaml"
    if text is not None:
        path.write_text(text)
    assert main([str(path)]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1


def test_a_part_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(write(tmp_path)), "--only", "frist"]) == 2
    assert "There is no part `frist`. Did you mean `first`?" in capsys.readouterr().err
