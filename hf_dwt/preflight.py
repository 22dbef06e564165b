"""Before the first step: is there anything to predict, and is the teacher better than guessing?"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hf_dwt.heads import Head
from hf_dwt.losses import IGNORED_LABEL, hard_loss
from hf_dwt.positions import LABEL_NAMES, Positions, has_labels

_NUM_POSITIONS = 1000


@dataclass(frozen=True)
class FirstImpression:
    """How a teacher does on the first batches.

    Attributes:
        teacher_loss: Its mean hard loss, nats per position.
        unigram_loss: The loss of guessing each token by its frequency in the same batches, nats per position.
        num_positions: Positions that both are taken over.
    """

    teacher_loss: float
    unigram_loss: float
    num_positions: int


def first_batches(
    batches: Iterable[dict[str, Any]], positions_of: Callable[[Mapping[str, Any]], Positions]
) -> list[dict[str, Any]]:
    """Take batches until they hold a thousand positions, or the data end.

    Args:
        batches: As `sampling.sampled_by` gives them.
        positions_of: Finds the positions of a batch.

    Raises:
        ValueError: If the data set is empty, a batch has no labels, or not one for each token, or no prediction is
            asked for at all.
    """
    taken, num_positions = [], 0
    for batch in batches:
        if not has_labels(batch):
            raise ValueError(
                f"A batch of `train_dataset` has no `labels`, only {', '.join(map(repr, batch))}: there is nothing to "
                "predict. Leave `data_collator` out, for one that makes labels, or let yours make them."
            )
        _require_label_for_each_token(batch)
        taken.append(batch)
        num_positions += len(positions_of(batch))
        if num_positions >= _NUM_POSITIONS:
            break
    if not taken:
        raise ValueError("`train_dataset` is empty.")
    if num_positions == 0:
        raise ValueError(
            f"`train_dataset` asks for no prediction: in {len(taken)} batches every label is {IGNORED_LABEL}."
        )
    return taken


def _require_label_for_each_token(batch: Mapping[str, Any]) -> None:
    tokens = batch.get("input_ids")
    for name in LABEL_NAMES:
        labels = batch.get(name)
        if tokens is not None and labels is not None and labels.shape != tokens.shape:
            raise ValueError(
                f"`{name}` of a batch of `train_dataset` have the shape {tuple(labels.shape)}, its `input_ids` "
                f"{tuple(tokens.shape)}: a language model takes a label for each token. If they are classes of the "
                "examples, drop that column; labels are then made of the tokens."
            )


def first_impression(
    batches: Iterable[Mapping[str, Tensor]],
    positions_of: Callable[[Mapping[str, Any]], Positions],
    teacher_head_of: Callable[[Mapping[str, Any], Positions], Head],
) -> FirstImpression:
    """Measure the teacher and the unigram model on the positions whose label the teacher knows.

    The unigram model takes add-one frequencies over all tokens of the same batches.

    Args:
        batches: As `first_batches` returns them, on the teacher's device.
        positions_of: Finds the positions of a batch.
        teacher_head_of: The teacher's head, with logits of the shared tokens, for a batch and its positions.
    """
    tokens, labels, teacher_losses = [], [], []
    num_shared = 0
    for batch in batches:
        positions = positions_of(batch)
        head = teacher_head_of(batch, positions)
        for rows in head.parts:
            logits, asked = head.logits(rows), positions.labels[rows]
            num_shared = logits.shape[-1]
            known = asked < num_shared
            labels.append(asked[known])
            teacher_losses.append(hard_loss(logits[known], labels[-1]))
        tokens.append(original_tokens(batch))
    all_labels = torch.cat(labels)
    return FirstImpression(
        teacher_loss=torch.cat(teacher_losses).mean().item(),
        unigram_loss=unigram_loss(torch.cat(tokens), all_labels, num_shared),
        num_positions=len(all_labels),
    )


def unigram_loss(tokens: Tensor, labels: Tensor, num_tokens: int) -> float:
    """Mean loss of guessing each label by its token's frequency, nats.

    Args:
        tokens: Shape (tokens,), where the frequencies are counted; 1 is added to each.
        labels: Shape (positions,), below `num_tokens`.
        num_tokens: Of the vocabulary; tokens beyond it are not counted.
    """
    counts = torch.bincount(tokens[tokens < num_tokens], minlength=num_tokens) + 1
    log_frequencies = counts.log() - counts.sum().log()
    return -log_frequencies[labels].mean().item()


def original_tokens(batch: Mapping[str, Tensor]) -> Tensor:
    """Tokens as they were before masking, shape (tokens,), without padding where a mask for each token tells it."""
    tokens, labels = batch["input_ids"], batch.get("labels")
    if labels is not None:
        tokens = labels.where(labels != IGNORED_LABEL, tokens)
    mask = batch.get("attention_mask")
    return tokens.flatten() if mask is None or mask.shape != tokens.shape else tokens[mask.bool()]
