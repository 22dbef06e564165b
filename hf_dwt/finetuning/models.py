"""Models to be scored: checked before work, loaded with a new head, or bare."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

from hf_dwt.language_models import architecture_kind

_READ = ("config.json", "tokenizer.json", "*.safetensors")


@dataclass(frozen=True)
class Candidate:
    """A model to be scored.

    Attributes:
        name: Folder or Hub id.
        config: Its configuration.
        tokenizer: Pads at the right.
        fingerprint: A digest of its files, or the commit of its repository.
    """

    name: str
    config: Any
    tokenizer: Any
    fingerprint: str

    def max_length(self, wanted: int) -> int:
        """Return how many tokens of a row can be read, at most as many as wanted."""
        limit: int | None = getattr(self.config.get_text_config(), "max_position_embeddings", None)
        return min(wanted, int(self.tokenizer.model_max_length), limit or wanted)

    def is_causal(self) -> bool:
        """Tell whether only the last position has read everything."""
        return architecture_kind(self.config) == "causal"


def open_candidate(name: str, *, with_head: bool) -> Candidate:
    """Read configuration and tokenizer.

    Args:
        name: Folder or Hub id.
        with_head: Whether a classification head will be needed.

    Raises:
        ValueError: If the model cannot be scored so, or has no tokenizer.
        OSError: If it is not there.
    """
    try:
        config = AutoConfig.from_pretrained(name)
    except OSError as error:
        raise OSError(f"The model {name!r} could not be read: {error}") from error
    if config.is_encoder_decoder:
        raise ValueError(f"{name} is an encoder-decoder ({config.model_type}): only encoders and decoders are scored.")
    if with_head and type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise ValueError(
            f"{name} cannot be fine-tuned: transformers has no sequence classification class for "
            f"{config.model_type!r} models. Score it with `method='probe'` (`--method probe`)."
        )
    tokenizer = AutoTokenizer.from_pretrained(name)
    # Where its files are missing, transformers may answer with a tokenizer that has special tokens only.
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise ValueError(f"There is no tokenizer beside the model {name}: save one there with `save_pretrained`.")
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ValueError(f"The tokenizer of {name} has neither a padding nor an end token: set `pad_token`.")
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    return Candidate(name, config, tokenizer, _fingerprint(name, config))


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
    model = AutoModelForSequenceClassification.from_pretrained(
        candidate.name, use_safetensors=True, dtype=torch.float32, ignore_mismatched_sizes=True, **head
    )
    # Decoders find the last token of a row by it.
    model.config.get_text_config().pad_token_id = candidate.tokenizer.pad_token_id
    return model


def load_encoder(candidate: Candidate) -> PreTrainedModel:
    """Load the model without any head, for reading only."""
    return AutoModel.from_pretrained(candidate.name, use_safetensors=True, dtype=torch.float32).eval()


def _fingerprint(name: str, config: Any) -> str:
    folder = Path(name)
    if not folder.is_dir():
        return str(config._commit_hash)
    digest = hashlib.sha256()
    for file in sorted(file for pattern in _READ for file in folder.glob(pattern)):
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()[:16]
