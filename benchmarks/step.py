"""What a training step costs: seconds and memory, against the stock `Trainer`, tutorials and other libraries.

    python -m benchmarks.step [--rounds 3] [--only masked sentences memory causal low_precision sizes]

Without `--only`, `low_precision` and `sizes` are left out. Seconds are medians over rounds in which the arms take
turns; a ratio is of two arms of the same run, and its range is that over the rounds. Peaks are of processes of their
own. Results are kept in results/step-cpu.json.
"""

import statistics
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from datasets import Dataset
from transformers.utils import logging

from benchmarks.measuring import PeakMemory, in_turn, peak_in_child, run_sections, summary
from benchmarks.step_arms import NUM_FIRST_STEPS, Arms, Setting
from benchmarks.step_causal import FORMS, measure_form
from benchmarks.step_text import grouped_batches


def masked(rounds: int) -> dict[str, Any]:
    """The paper's shape on blocks of 128 tokens."""
    return compare(Setting(), ["stock", "tutorial", "textbrewer", "alone", "taught"], rounds)


def low_precision(rounds: int) -> dict[str, Any]:
    """The paper's shape with a teacher in bfloat16: it pays only where the processor multiplies in bfloat16."""
    return compare(Setting(), ["stock", "alone", "taught", "taught_low"], rounds)


def of_sentences(rounds: int) -> dict[str, Any]:
    """The paper's shape on sentences of natural lengths, the same batches of similar lengths for all arms."""
    setting = Setting(batch_size=32, num_steps=2, arguments={"train_sampling_strategy": "sequential"})
    data = grouped_batches(setting)
    counted = data["length"][NUM_FIRST_STEPS * setting.batch_size :]
    padded = [max(counted[start : start + setting.batch_size]) for start in range(0, len(counted), setting.batch_size)]
    result = compare(setting, ["stock", "alone", "taught"], rounds, data)
    return result | {"mean length": statistics.mean(counted), "mean padded length": statistics.mean(padded)}


def compare(setting: Setting, names: list[str], rounds: int, dataset: Dataset | None = None) -> dict[str, Any]:
    """Time arms in turn; an arm that does not run is told with its reason."""
    arms = Arms(setting, dataset)
    running: dict[str, Callable[[], list[float]]] = {}
    failed: dict[str, str] = {}
    for name in names:
        running[name] = getattr(arms, name)
        if name != "textbrewer":
            continue
        try:
            running[name]()
        except Exception as error:  # another library on a stack that is newer than itself
            del running[name]
            failed[name] = f"{type(error).__name__}: {error}"
    seconds = in_turn(running, rounds)
    rows = {name: summary(seconds[name], seconds["stock"]) for name in running}
    for name in rows.keys() & {"taught", "taught_low"}:
        for other in rows.keys() & {"alone", "tutorial", "textbrewer"}:
            rows[name][f"to {other}"] = summary(seconds[name], seconds[other])["ratio"]
    return {"setting": repr(setting), "arms": rows, "failed": failed, "seconds": seconds}


def memory(_: int) -> dict[str, Any]:
    """Peak of a short training, in a process that does nothing else."""
    setting = Setting(batch_size=32, num_steps=1)
    peaks = {name: peak_in_child(peak_of_training, setting, name) for name in ("stock", "taught")}
    arms = {name: {"MiB": peak, "ratio": peak / peaks["stock"]} for name, peak in peaks.items()}
    return {"setting": repr(setting), "arms": arms}


def peak_of_training(setting: Setting, name: str) -> float:
    """Peak memory of an arm above what the imports take, MiB; the models are in it."""
    logging.set_verbosity_error()
    with PeakMemory(setting.device) as peak:
        getattr(Arms(setting), name)()
    return peak.mebibytes


def causal(_: int, device: str = "cpu") -> dict[str, Any]:
    """Both losses of a causal LM, by vocabulary: ours against full logits of both models."""
    rows = {}
    for vocab_size, batch_size in ((32_000, 2), (128_256, 2), (256_000, 1)):
        setting = Setting("causal", 1, 1, 768, 512, vocab_size, batch_size, 1024, device)
        for name in FORMS if vocab_size == 128_256 else ("full logits", "ours"):
            try:
                rows[f"{vocab_size:,} {name}"] = peak_in_child(measure_form, setting, name)
            except (ImportError, RuntimeError) as error:
                rows[f"{vocab_size:,} {name}"] = {"failed": f"{type(error).__name__}: {error}"}
    for name, row in rows.items():
        base = rows[f"{name.split()[0]} full logits"]
        if "failed" not in row and "failed" not in base:
            row |= {"memory ratio": row["MiB"] / base["MiB"], "time ratio": row["seconds"] / base["seconds"]}
    return {"arms": rows}


def sizes(rounds: int) -> dict[str, Any]:
    """DWT and stand-alone steps against batch, length, vocabulary and teacher, beside the arithmetic."""
    base = Setting(num_steps=3)
    changes: list[dict[str, Any]] = [{}, {"batch_size": 2}, {"batch_size": 32}, {"length": 32, "batch_size": 32}]
    changes += [{"length": 512, "batch_size": 2}, {"vocab_size": 2048}, {"vocab_size": 128_256}]
    changes += [{"teacher_layers": 2}, {"teacher_layers": 1}]
    rows = {}
    for change in changes:
        setting = replace(base, **change)
        result = compare(setting, ["stock", "alone", "taught"], max(1, rounds // 2))["arms"]
        name = ", ".join(f"{key} {value:,}" for key, value in change.items()) or "the paper's shape"
        rows[name] = {
            "stock seconds": result["stock"]["seconds"],
            "alone / stock": result["alone"]["ratio"],
            "taught / stock": result["taught"]["ratio"],
            "taught / alone": result["taught"]["to alone"],
            "by arithmetic": setting.flops(with_teacher=True) / setting.flops(with_teacher=False),
        }
    return {"arms": rows}


SECTIONS = {
    "masked": masked,
    "sentences": of_sentences,
    "memory": memory,
    "causal": causal,
    "low_precision": low_precision,
    "sizes": sizes,
}


if __name__ == "__main__":
    run_sections(SECTIONS, "step-cpu", sys.argv[1:], __doc__, on_demand=("low_precision", "sizes"))
