"""Lines of a made-up study, in the shape in which the runner writes them."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.study.lines import Line, as_line

UNIGRAM = 2.0


def content(arm: str = "alone", seed: int = 1, loss: float = 0.5, **changes: Any) -> dict[str, Any]:
    """One line; `changes` are of the cell, but for those named in the body."""
    step_cost, teacher_cost = 300, 40
    curve = changes.pop("curve", None)
    fingerprint, parent_print = changes.pop("fingerprint", "aaaa"), changes.pop("parent_fingerprint", "aaaa")
    teacher_loss, training = changes.pop("teacher_loss", 0.8), changes.pop("training_operations", 6_000)
    held_out, clipped = changes.pop("held_out", "same"), changes.pop("clipped", 0.0)
    unigram, operations = changes.pop("unigram_loss", UNIGRAM), changes.pop("operations", None)
    cell = {
        "id": None, "part": "quality", "arm": arm, "inputs": "molecules", "size": "4x128", "start": "random",
        "teacher": None, "grown_from": None, "weighting": None, "soft_loss_weight": None,
        "final_soft_loss_weight": None, "weighting_kwargs": None, "temperature": None, "learning_rate": 1e-3,
        "steps": 100, "seed": seed, "dropout": 0.0, **changes,
    }  # fmt: skip
    if cell["teacher"] is not None:
        cell |= {"weighting": cell["weighting"] or "constant", "temperature": cell["temperature"] or 1.0}
    cell["id"] = cell["id"] or f"{cell['part']}/{arm}/seed-{seed}"
    steps, teacher, parent = cell["steps"], cell["teacher"], cell["grown_from"]
    taught = steps if teacher else 0
    if curve is None:
        curve = [(0, 2.0), (steps // 5, 1.2), (2 * steps // 5, 0.79), (steps, loss)]
    points = [{"step": step, "seconds": float(step), "loss": each} for step, each in curve]
    facts = {"name": teacher, "loss": teacher_loss, "accuracy": 0.7, "curve_loss": teacher_loss}
    facts |= {"fingerprint": fingerprint, "training_operations": training, "seed": 0}
    grown = {"name": parent, "training_operations": training, "fingerprint": parent_print}
    return {
        "cell": cell,
        "recipe": {},
        "run": {
            "name": arm, "steps": steps, "loss": loss, "accuracy": 0.8, "seconds": 9.0, "taught_steps": taught,
            "curve": points, "cache_passes": None, "num_probes": 0, "probe_size": 0.0,
            "held_out": {"examples": held_out, "mask_seed": seed, "mask_probability": 0.15},
        },
        "final": {"loss": loss, "accuracy": 0.8, "num_examples": 8000, "unigram_loss": unigram},
        "teacher": facts if teacher else None,
        "grown_from": grown if parent else None,
        "cost": {
            "standalone_step": step_cost, "teacher_forward": teacher_cost if teacher else 0,
            "operations": operations or steps * step_cost + taught * teacher_cost,
            "teacher_operations": taught * teacher_cost,
        },
        "clipped": clipped,
        "seconds": 360.0,
        "cores": 1,
        "threads": 1,
        "versions": {},
        "commit": "c0ffee",
        "machine": "a made-up machine",
        "date": "2026-11-25",
    }  # fmt: skip


def arm(name: str, losses: Mapping[int, float], **changes: Any) -> list[dict[str, Any]]:
    """The lines of an arm, one a seed."""
    return [content(name, seed, loss, **changes) for seed, loss in losses.items()]


def written(folder: Path, contents: Iterable[Mapping[str, Any]]) -> Path:
    """A folder with a file for each part, as the runner leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    for each in contents:
        with (folder / f"{each['cell']['part']}.jsonl").open("a") as file:
            file.write(json.dumps(each) + "\n")
    return folder


def lines(contents: Iterable[Mapping[str, Any]]) -> list[Line]:
    """As the report reads them."""
    return [as_line(each) for each in contents]
