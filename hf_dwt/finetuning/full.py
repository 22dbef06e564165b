"""Fine-tuning of all weights with the `Trainer` of transformers."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import DataCollatorWithPadding, PrinterCallback, Trainer, TrainingArguments

from hf_dwt.finetuning.models import Candidate, load_classifier
from hf_dwt.finetuning.rows import Rows
from hf_dwt.finetuning.suites import Training

# Dropout draws the same in every run: a seed changes the head and the order of the rows alone.
_DROPOUT_SEED = 0


def fine_tune(candidate: Candidate, rows: Rows, training: Training, seed: int, folder: Path) -> dict[str, np.ndarray]:
    """Fine-tune a model and predict.

    Args:
        candidate: Where it starts.
        rows: Of the task.
        training: How.
        seed: Of the new head and of the order of the rows.
        folder: Not used; nothing of the model is kept.

    Returns:
        Classes or numbers for each evaluation split, in the order of its rows.
    """
    model = load_classifier(candidate, rows.labels, seed)
    return train_and_predict(model, candidate, rows, training, seed, training.learning_rate)


def train_and_predict(
    model: Any, candidate: Candidate, rows: Rows, training: Training, seed: int, learning_rate: float
) -> dict[str, np.ndarray]:
    """Train what the model lets be trained, and predict; see `fine_tune`."""
    train = tokenise(rows.train, candidate, training.max_length)
    steps = max(round(-(-len(train) // training.batch_size) * training.epochs), 1)
    with TemporaryDirectory() as scratch:
        trainer = Trainer(
            model,
            TrainingArguments(
                scratch,
                learning_rate=learning_rate,
                num_train_epochs=training.epochs,
                per_device_train_batch_size=training.batch_size,
                per_device_eval_batch_size=64,
                warmup_steps=round(training.warmup * steps),
                weight_decay=training.weight_decay,
                seed=_DROPOUT_SEED,
                data_seed=seed,
                save_strategy="no",
                logging_strategy="no",
                report_to="none",
                disable_tqdm=True,
                use_cpu=not torch.cuda.is_available(),
                dataloader_pin_memory=torch.cuda.is_available(),
            ),
            DataCollatorWithPadding(candidate.tokenizer),
            train_dataset=train,
            processing_class=candidate.tokenizer,
        )
        # Without a progress bar it prints its metrics instead.
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        logits = {
            name: trainer.predict(tokenise(part, candidate, training.max_length)).predictions
            for name, part in rows.evaluation.items()
        }
    return {name: each.argmax(-1) if rows.labels else each.reshape(-1) for name, each in logits.items()}


def tokenise(rows: Dataset, candidate: Candidate, max_length: int) -> Dataset:
    """Turn rows into token ids, cut where the task or the model says; labels stay."""
    columns = [name for name in ("text", "text_pair") if name in rows.column_names]
    length = candidate.max_length(max_length)
    tokens = candidate.tokenizer(*(list(rows[column]) for column in columns), truncation=True, max_length=length)
    if not candidate.is_causal():
        return Dataset.from_dict({**tokens, "label": rows["label"]})
    # Many tokenizers of causal models add nothing: a row without text still needs a token.
    ids = [row or [candidate.tokenizer.pad_token_id] for row in tokens["input_ids"]]
    return Dataset.from_dict(
        {"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids], "label": rows["label"]}
    )
