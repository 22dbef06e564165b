"""Models to be scored: checked before work, loaded with a new head, or bare."""

import hashlib
import os
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

from hf_dwt.hub.access import resolve_commit
from hf_dwt.language_models import architecture_kind, longest_sequence
from hf_dwt.model_files import looks_local, needs_own_code, without_conversion_service

_READ = ("config.json", "tokenizer.json", "*.safetensors")


@dataclass(frozen=True)
class Candidate:
    """A model to be scored.

    Attributes:
        name: As given.
        source: Where it is read from: a folder or a Hub id.
        revision: The full commit that is read; None for a folder.
        config: Its configuration.
        tokenizer: Pads at the right.
        fingerprint: A digest of its files, or the commit of its repository.
    """

    name: str
    source: str
    revision: str | None
    config: Any
    tokenizer: Any
    fingerprint: str

    def max_length(self, wanted: int) -> int:
        """Return how many tokens of a row can be read, at most as many as wanted."""
        return min(wanted, int(self.tokenizer.model_max_length), self._longest_sequence or wanted)

    @cached_property
    def _longest_sequence(self) -> int | None:
        with torch.device("meta"):
            return longest_sequence(AutoModel.from_config(deepcopy(self.config), trust_remote_code=False))

    def is_causal(self) -> bool:
        """Tell whether only the last position has read everything."""
        return architecture_kind(self.config) == "causal"


def open_candidate(name: str, *, with_head: bool) -> Candidate:
    """Read configuration and tokenizer; those of a Hub id, and later its weights, are of one commit.

    Args:
        name: Folder, Hub id or `id@revision`.
        with_head: Whether a classification head will be needed.

    Raises:
        ValueError: If the model cannot be scored so, needs code of its own, or has no tokenizer.
        OSError: If it is not there.
    """
    source, revision = _pinned(name)
    own: dict[str, Any] = {"revision": revision or "main", "trust_remote_code": False}
    try:
        _refuse_own_code(name, PreTrainedConfig.get_config_dict(source, revision=own["revision"])[0])
        config = AutoConfig.from_pretrained(source, **own)
    except OSError as error:
        raise OSError(f"The model {name!r} could not be read: {error}") from error
    if config.is_encoder_decoder:
        raise ValueError(f"{name} is an encoder-decoder ({config.model_type}): only encoders and decoders are scored.")
    if with_head and type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise ValueError(
            f"{name} cannot be fine-tuned: transformers has no sequence classification class for "
            f"{config.model_type!r} models. Score it with `method='probe'` (`--method probe`)."
        )
    tokenizer = AutoTokenizer.from_pretrained(source, **own)
    # Where its files are missing, transformers may answer with a tokenizer that has special tokens only.
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise ValueError(f"There is no tokenizer beside the model {name}: save one there with `save_pretrained`.")
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ValueError(f"The tokenizer of {name} has neither a padding nor an end token: set `pad_token`.")
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    return Candidate(name, source, revision, config, tokenizer, revision or _fingerprint(source))


def _refuse_own_code(name: str, config: dict[str, Any]) -> None:
    if needs_own_code(config):
        raise ValueError(
            f"{name} is of a class that transformers does not have, {config.get('model_type')!r}, and brings code for "
            "it. Code of a model is not run here, and nothing of it was: score a model of a class of transformers."
        )


def _pinned(name: str) -> tuple[str, str | None]:
    """Where a model is read from, and the commit that its revision means now; None for a folder."""
    if looks_local(name):
        return os.path.expanduser(name), None
    source, _, revision = name.partition("@")
    return source, resolve_commit(source, revision or None, None, role="model")


def load_classifier(candidate: Candidate, labels: tuple[str, ...] | None, seed: int) -> PreTrainedModel:
    """Load the model with a new head, drawn from the seed.

    Args:
        candidate: Which one.
        labels: Names of the classes; None for one number.
        seed: Of the head.
    """
    if labels is None:
        head = {"num_labels": 1, "problem_type": "regression"}
    else:
        names = dict(enumerate(labels))
        head = {"problem_type": "single_label_classification", "id2label": names}
        head["label2id"] = {label: number for number, label in names.items()}
    torch.manual_seed(seed)
    with without_conversion_service():
        model = AutoModelForSequenceClassification.from_pretrained(
            candidate.source, **_weights_of(candidate), ignore_mismatched_sizes=True, **head
        )
    # Decoders find the last token of a row by it.
    model.config.get_text_config().pad_token_id = candidate.tokenizer.pad_token_id
    return model


def load_encoder(candidate: Candidate) -> PreTrainedModel:
    """Load the model without any head, for reading only."""
    with without_conversion_service():
        return AutoModel.from_pretrained(candidate.source, **_weights_of(candidate)).eval()


def _weights_of(candidate: Candidate) -> dict[str, Any]:
    own = {"revision": candidate.revision or "main", "trust_remote_code": False}
    return {**own, "use_safetensors": True, "dtype": torch.float32}


def _fingerprint(name: str) -> str:
    folder = Path(name)
    digest = hashlib.sha256()
    for file in sorted(file for pattern in _READ for file in folder.glob(pattern)):
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()[:16]
