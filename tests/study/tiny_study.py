"""A study of few, tiny cells on made-up molecules, for the tests."""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from benchmarks.study.cells import Cell, Planned, expand
from benchmarks.study.config import Study, make_study

ARGUMENTS = {"per_device_train_batch_size": 8, "per_device_eval_batch_size": 30, "eval_steps": 0.5}
ARGUMENTS |= {"eval_strategy": "steps", "logging_steps": 0.5, "save_strategy": "no", "use_cpu": True}
ARGUMENTS |= {"report_to": "none", "disable_tqdm": True, "max_grad_norm": 0, "allow_bad_teacher": True}
INPUTS = {
    "objective": "masked",
    "tokenizer": {"name": "./made_up/albert"},
    "student": {"model_type": "bert", "max_position_embeddings": 64},
    "dropout": ["hidden_dropout_prob", "attention_probs_dropout_prob"],
    "data": {
        "source": "./made_up/train-200.txt",
        "evaluation_source": "./made_up/test-40.txt",
        "form": "sentences",
        "length": 64,
        "num_evaluation_examples": 20,
    },
    "num_test_examples": 40,
    "arguments": ARGUMENTS,
    "tokens": 20,
    "vocabulary": 21,
}
SMALL = {"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
LARGE = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64}
TEACHER = {"inputs": "molecules", "size": "small", "steps": 12, "learning_rate": 4e-3}
CONTENT: Mapping[str, Any] = {
    "operations_per_second": 1e9,
    "seconds_per_cell": 1.0,
    "inputs": {"molecules": INPUTS},
    "sizes": {"small": {"bert": SMALL}, "large": {"bert": LARGE}},
    "teachers": {"weak": {**TEACHER, "seed": 7}, "other": {**TEACHER, "seed": 8}},
    "defaults": {"inputs": "molecules", "size": "large", "steps": 10, "start": "random", "teacher": None}
    | {"learning_rate": 1e-3, "weighting": "linear", "soft_loss_weight": 4, "final_soft_loss_weight": 1}
    | {"grown_from": "weak"},
    "parts": [
        {"name": "first", "seeds": [1], "arms": {"alone": {}, "taught": {"teacher": "weak"}}},
        {"name": "second", "seeds": [1], "arms": {"alone": {}, "grown": {"start": "exact"}}},
    ],
}


def content(**changes: Any) -> dict[str, Any]:
    """The study's content, with other sections."""
    return {**deepcopy(dict(CONTENT)), **changes}


def study(**changes: Any) -> Study:
    """The study, with other sections."""
    return make_study(content(**changes), "tiny")


def part(name: str = "part", seeds: tuple[int, ...] = (1,), **own: Any) -> dict[str, Any]:
    """A part."""
    return {"name": name, "seeds": list(seeds), **own}


def planned(*parts: dict[str, Any], losses: Mapping[str, float] | None = None, **changes: Any) -> list[Planned]:
    """The cells of some parts, teachers left out; `losses` are of the cells with these ids."""
    own = study(parts=list(parts), **changes)
    by_id = losses or {}
    choices = {each.cell.choices: by_id[each.cell.id] for each in expand(own, lambda _: None) if each.cell.id in by_id}
    return [each for each in expand(own, choices.get) if each.cell.part != "teachers"]


def cells(*parts: dict[str, Any], **changes: Any) -> list[Cell]:
    """Likewise, without what they wait for."""
    return [each.cell for each in planned(*parts, **changes)]


def write(folder: Path, **changes: Any) -> Path:
    """Write the study as a file."""
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(content(**changes), sort_keys=False))
    return path
