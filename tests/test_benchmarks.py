"""The benchmarks run, at sizes at which their figures mean nothing, and compare like with like."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from tiny_runs import examples, tokenizer

from benchmarks import data, measuring, start
from benchmarks.cache_error import KEPT, SHARES, Trial
from benchmarks.cache_error import compare as compare_cached
from benchmarks.measuring import PeakMemory, in_turn, save, summary
from benchmarks.profile_step import bounds, kind_of, shares
from benchmarks.step import compare
from benchmarks.step_arms import Setting
from benchmarks.step_causal import measure_form
from benchmarks.teacher_costs import memory, reading, steps
from hf_dwt.data import train_tokenizer

TINY = {"layers": 1, "teacher_layers": 1, "hidden_size": 64, "teacher_hidden_size": 64, "vocab_size": 500}


@pytest.mark.filterwarnings("ignore")
def test_arms_take_turns_and_are_compared_with_the_stock_trainer() -> None:
    result = compare(Setting(**TINY, num_steps=2, batch_size=2), ["stock", "alone", "taught"], rounds=2)
    assert [len(rounds) for rounds in result["seconds"].values()] == [2, 2, 2]
    assert all(len(steps) == 2 for rounds in result["seconds"].values() for steps in rounds)
    assert result["arms"]["stock"]["ratio"] == 1
    assert result["arms"]["taught"]["to alone"] > 0


@pytest.mark.filterwarnings("ignore")
def test_shares_of_a_step_are_of_a_whole_and_no_step_is_faster_than_its_bound() -> None:
    setting = Setting(**TINY, num_steps=1, batch_size=2)
    for row in shares(1, setting)["arms"].values():
        assert sum(row.values()) - row["seconds"] == pytest.approx(100)
        assert row["products"] > 0 < row["optimiser"]
    for row in bounds(1, setting)["arms"].values():
        assert 0 < row["of the bound"] < 1


def test_operations_are_told_by_their_kinds() -> None:
    names = {"aten::addmm": "products", "aten::_fused_adamw_": "optimiser", "aten::_log_softmax": "softmax and losses"}
    assert {name: kind_of(name) for name in names} == names
    assert kind_of("aten::native_layer_norm_backward") == "activations and norms"
    assert kind_of("DataLoader") == "other"


@pytest.mark.filterwarnings("ignore")
def test_full_logits_and_ours_are_the_same_loss() -> None:
    setting = Setting("causal", **TINY, batch_size=2, length=64)
    full, ours = (measure_form(setting, name)["loss"] for name in ("full logits", "ours"))
    assert ours == pytest.approx(full, rel=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_released_and_cached_teachers_are_compared_with_the_student_alone() -> None:
    setting = Setting(**TINY, num_steps=2, batch_size=2)
    assert set(steps(1, setting)["arms"]) == {"alone", "taught", "released", "cached"}
    assert memory(1, setting)["arms"]["teacher"]["MiB"] > 0
    assert set(reading(1, setting)["arms"]) == {"step alone", "from disk", "from memory"}


class TinyTrial(Trial):
    """One of the tests' own words, which fetches nothing."""

    tokenizer = property(lambda self: tokenizer())

    def blocks(self, name: str) -> Dataset:
        return examples(24)


@pytest.mark.filterwarnings("ignore")
def test_errors_of_a_cache_vanish_with_what_it_leaves_out(tmp_path: Path) -> None:
    sizes = {"teacher_size": (1, 16), "student_size": (1, 16), "batch_size": 4, "num_compared": 6}
    trial = TinyTrial("causal", tmp_path, teacher_steps=10, student_steps=12, **sizes)
    rows = compare_cached(trial)["arms"]
    assert len(rows) == len(SHARES) * len(KEPT)
    for name, row in rows.items():
        top_k, is_drawn = int(name.split("k = ")[1].split()[0]), name.endswith("drawn")
        is_whole = top_k >= len(tokenizer())
        assert row["kept mass, %"] == pytest.approx(100, abs=1e-3) if is_whole else row["kept mass, %"] < 99
        # Log-probabilities are rounded to float16.
        off = row["soft, cached"] - row["soft"]
        assert abs(off) < 1e-2 + 4 * row["soft, +- %"] / 100 * row["soft"] if is_whole or is_drawn else off < 1e-2


def test_arms_run_a_b_a_b() -> None:
    order: list[str] = []
    in_turn({name: lambda name=name: order.append(name) or [1.0] for name in "AB"}, rounds=2)
    assert order == ["A", "B", "A", "B"]


def test_a_ratio_is_of_medians_and_its_range_over_rounds() -> None:
    result = summary([[1.0, 2.0, 9.0], [4.0]], [[1.0], [1.0]])
    assert result == {"seconds": 3.0, "ratio": 3.0, "lowest": 2.0, "highest": 4.0}


def test_a_peak_is_above_the_start() -> None:
    with PeakMemory("cpu") as peak:
        bytearray(64 * 2**20)
    assert 60 < peak.mebibytes < 80


def test_sections_that_were_not_measured_are_kept(tmp_path: Path) -> None:
    save("results", {"first": 1, "second": 1}, tmp_path)
    save("results", {"second": 2}, tmp_path)
    assert "first" in (tmp_path / "results.json").read_text()
    assert measuring.json.loads((tmp_path / "results.json").read_text()) == {"first": 1, "second": 2}


def test_a_script_of_each_kind_takes_its_first_step() -> None:
    arms = start.first_step(rounds=1)["arms"]
    assert list(arms) == ["stock", "alone", "taught"]
    assert arms["stock"]["ratio"] == 1


@pytest.mark.filterwarnings("ignore")
def test_masked_batches_are_counted_in_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["one two three four five six seven eight nine ten"] * 500
    tokenizer = train_tokenizer(words, vocab_size=40, kind="wordpiece")
    monkeypatch.setattr(data, "_text_and_tokenizer", lambda: (Dataset.from_dict({"text": words}), tokenizer))
    monkeypatch.setattr(data, "NUM_WORKERS", 1)
    row = data.batches(rounds=1)["arms"]["ours"]
    assert row["tokens/s"] * row["seconds"] == pytest.approx(len(data._our_blocks()) * data.LENGTH)


def test_only_sections_that_are_asked_for_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def section(name: str) -> Callable[[int], dict[str, Any]]:
        def measure(rounds: int) -> dict[str, Any]:
            """A title."""
            asked.append(f"{name} {rounds}")
            return {"arms": {}}

        return measure

    monkeypatch.setattr(measuring, "save", lambda name, results: asked.append(f"{name}: {list(results)}"))
    monkeypatch.setattr(measuring.datasets, "disable_progress_bars", lambda: None)
    for name in ("set_verbosity_error", "disable_progress_bar"):
        monkeypatch.setattr(measuring.logging, name, lambda: None)
    sections = {name: section(name) for name in ("usual", "long")}
    measuring.run_sections(sections, "all", ["--rounds", "2"], "About.", on_demand=["long"])
    assert asked == ["usual 2", "all: ['usual']"]
    measuring.run_sections(sections, "all", ["--only", "long"], "About.", on_demand=["long"])
    assert asked[2:] == ["long 3", "all: ['long']"]
