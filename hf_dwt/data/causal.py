"""Batches for causal language models: labels are the token ids themselves."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from hf_dwt.data.padding import pad_examples


class CausalCollator:
    """Pads examples on the right and copies their token ids to the labels.

    Labels are -100 at padding only, known from the attention mask: where the end-of-sequence token is
    the padding token too, the model still learns to end. The labels are not shifted; models and losses
    in transformers do that.

    Args:
        tokenizer: Where the padding token comes from. Not needed for examples of one length.

    Example:
        >>> from hf_dwt.data import CausalCollator
        >>> CausalCollator()([{"input_ids": [5, 6]}])["labels"]
        tensor([[5, 6]])
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase | None = None) -> None:
        self.tokenizer = tokenizer

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """A batch of `input_ids`, `attention_mask`, `labels`, and `token_type_ids` if the examples have them.

        Args:
            features: Examples with `input_ids`; other keys than those above are dropped.

        Returns:
            Tensors of int64, shape (examples, longest).

        Raises:
            ValueError: Examples without `input_ids`, with `labels`, or of different lengths without a
                padding token.
        """
        batch = pad_examples(features, self.tokenizer, side="right")
        batch.pop("special_tokens_mask", None)
        batch["labels"] = np.where(batch["attention_mask"] != 0, batch["input_ids"], -100)
        return {key: torch.from_numpy(array) for key, array in batch.items()}
