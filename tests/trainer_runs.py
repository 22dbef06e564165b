"""Trainers of tiny models, and the formulas of the paper to compare them with."""

import gc
from pathlib import Path
from typing import Any

import torch
from tiny_runs import arguments, examples, make_student, make_teacher, tokenizer, weights_of
from torch import Tensor
from transformers import PreTrainedModel, Trainer

from hf_dwt import DWTTrainer

# What is imported by now stays: without it the collection at the end of each run is most of the run.
gc.freeze()

TRAINER_SETTINGS = {"model", "model_init", "train_dataset", "eval_dataset", "processing_class", "data_collator"}
TRAINER_SETTINGS |= {"compute_metrics", "compute_loss_func", "callbacks"}


def make_trainer(folder: Path, architecture: str = "masked", *, teacher: Any = "own", **settings: Any) -> DWTTrainer:
    """A trainer of a tiny student on the examples; settings that are no arguments go to the trainer."""
    ours = {name: settings.pop(name) for name in TRAINER_SETTINGS & settings.keys()}
    if "model_init" not in ours:
        ours.setdefault("model", make_student(architecture))
    return DWTTrainer(
        args=arguments(folder, **settings),
        teacher=make_teacher(architecture) if teacher == "own" else teacher,
        **{"train_dataset": examples(), "processing_class": tokenizer()} | ours,
    )


def trained_weights(folder: Path, kind: str = "masked", **settings: Any) -> dict[str, Tensor]:
    trainer = make_trainer(folder, kind, **settings)
    trainer.train()
    return weights_of(trainer.model)


def training_logs(trainer: Trainer) -> list[dict[str, float]]:
    return [logs for logs in trainer.state.log_history if "loss" in logs]


def stack(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
    return {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}


def plain_losses(
    student: PreTrainedModel, teacher: PreTrainedModel, batch: dict[str, Tensor], kind: str, temperature: float
) -> tuple[Tensor, Tensor]:
    """Hard and soft loss of each position by the formulas of the paper, from full logits."""
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    labels, student_logits = batch["labels"], student(**inputs).logits
    with torch.no_grad():
        teacher_logits = teacher(**inputs).logits
    if kind == "causal":
        labels, student_logits, teacher_logits = labels[:, 1:], student_logits[:, :-1], teacher_logits[:, :-1]
    asked = labels != -100
    labels, student_logits, teacher_logits = labels[asked], student_logits[asked], teacher_logits[asked]
    hard = -student_logits.log_softmax(-1)[torch.arange(len(labels)), labels]
    probabilities = (teacher_logits / temperature).softmax(-1)
    soft = probabilities * (probabilities.log() - (student_logits / temperature).log_softmax(-1))
    return hard, soft.sum(-1)
