"""A linear classifier on what a frozen model says of a text."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from transformers import DataCollatorWithPadding, PreTrainedModel

from hf_dwt.finetuning.full import tokenise
from hf_dwt.finetuning.models import Candidate, load_encoder
from hf_dwt.finetuning.rows import Rows
from hf_dwt.finetuning.suites import Training

_BATCH_SIZE = 64
_MOST_ITERATIONS = 1000


def probe(candidate: Candidate, rows: Rows, training: Training, seed: int, folder: Path) -> dict[str, np.ndarray]:
    """Fit a linear classifier, or a ridge regression, to the features of a frozen model, and predict.

    Args:
        candidate: Read only.
        rows: Of the task.
        training: Its `max_length` and `probe_strength`.
        seed: Changes nothing: the fit is exact and draws nothing.
        folder: Where features are kept, so that each text is read once.

    Returns:
        As `fine_tune`.

    Raises:
        ImportError: If scikit-learn is missing; `pip install 'hf_dwt[eval]'` brings it.
    """
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train, *parts = features(candidate, [rows.train, *rows.evaluation.values()], training.max_length, folder)
    if rows.labels is None:
        model = Ridge(alpha=1 / training.probe_strength)
    else:
        model = LogisticRegression(C=training.probe_strength, max_iter=_MOST_ITERATIONS)
    pipeline = make_pipeline(StandardScaler(), model).fit(train, list(rows.train["label"]))
    return {name: pipeline.predict(part) for name, part in zip(rows.evaluation, parts, strict=True)}


def features(candidate: Candidate, parts: list[Dataset], max_length: int, folder: Path) -> list[np.ndarray]:
    """Return one vector a text, read from `folder` where they are there already.

    The mean over the tokens of the last hidden state; of causal models the last token's, the only one that has read
    the whole text.
    """
    paths = [folder / f"{_digest(candidate, part, max_length)}.npy" for part in parts]
    if not all(path.is_file() for path in paths):
        folder.mkdir(parents=True, exist_ok=True)
        encoder = load_encoder(candidate)
        for part, path in zip(parts, paths, strict=True):
            half = path.with_suffix(".half.npy")
            np.save(half, _encode(encoder, candidate, part, max_length))
            half.replace(path)
    return [np.load(path) for path in paths]


def _digest(candidate: Candidate, rows: Dataset, max_length: int) -> str:
    texts = [rows[column][:] for column in rows.column_names if column != "label"]
    return hashlib.sha256(repr((candidate.fingerprint, max_length, texts)).encode()).hexdigest()[:24]


@torch.inference_mode()
def _encode(encoder: PreTrainedModel, candidate: Candidate, rows: Dataset, max_length: int) -> np.ndarray:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    encoder.to(device)
    tokens = tokenise(rows, candidate, max_length).remove_columns("label")
    collate = DataCollatorWithPadding(candidate.tokenizer)
    # Texts of like length together: less padding, half the time.
    order = np.argsort([len(ids) for ids in tokens["input_ids"]], kind="stable")
    vectors = np.empty((len(rows), encoder.config.get_text_config().hidden_size), np.float32)
    for start in range(0, len(rows), _BATCH_SIZE):
        chosen = order[start : start + _BATCH_SIZE]
        batch = collate([tokens[int(index)] for index in chosen]).to(device)
        hidden = encoder(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1)
        if candidate.is_causal():
            last = mask.sum(1, keepdim=True) - 1
            pooled = hidden.gather(1, last.expand(-1, 1, hidden.shape[-1])).squeeze(1)
        else:
            pooled = (hidden * mask).sum(1) / mask.sum(1)
        vectors[chosen] = pooled.float().cpu().numpy()
    return vectors
