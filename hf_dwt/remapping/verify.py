"""The proof that a grown student predicts what its teacher predicts, or the measure of how far it is off."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from inspect import signature

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PretrainedConfig, PreTrainedModel

from hf_dwt.remapping.sizes import read_sizes
from hf_dwt.remapping.tiny import random_inputs
from hf_dwt.remapping.width import Expansion

# Relative to the standard deviation of the logits, float32; what rounding explains.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Difference:
    """How far two models' outputs lie apart.

    Attributes:
        largest: Largest absolute difference of two logits (hidden states for a model without a head).
        spread: Standard deviation of the teacher's.
        agreement: Share of positions at which both name the same token, 0 to 1; None without a head.
    """

    largest: float
    spread: float
    agreement: float | None

    def __str__(self) -> str:
        agreement = "" if self.agreement is None else f", same token at {self.agreement:.1%}"
        return f"largest difference {self.largest:.2g}, {self.relative:.2g} standard deviations{agreement}"

    @property
    def relative(self) -> float:
        """Largest difference in standard deviations."""
        return self.largest / self.spread if self.spread else self.largest

    @property
    def exact(self) -> bool:
        """Whether the difference is one of rounding."""
        return self.relative <= TOLERANCE


@torch.no_grad()
def compare(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    inputs: Mapping[str, Tensor],
    hidden: Expansion,
) -> Difference:
    """Run both models on the same input and compare what they say about tokens that are not padding.

    Args:
        teacher: In evaluation mode.
        student: In evaluation mode.
        inputs: Keyword arguments of both.
        hidden: How the hidden axis grew: hidden states are compared where a unit has a source.
    """
    theirs, ours = first_output(teacher, inputs), first_output(student, inputs)
    has_head = teacher.get_output_embeddings() is not None
    if has_head:
        ours = ours[..., : theirs.shape[-1]]
    elif theirs.shape[-1] == hidden.num_old and ours.shape[-1] == len(hidden.source):
        kept = ~hidden.new
        ours, theirs = ours[..., kept], theirs[..., hidden.source[kept]]
    mask = inputs["attention_mask"].bool()
    if theirs.shape[:2] == mask.shape:
        theirs, ours = theirs[mask], ours[mask]
    found = difference_of(theirs, ours)
    return found if has_head else replace(found, agreement=None)


def first_output(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> Tensor:
    """Logits, or the last hidden state of a model without a head."""
    output = model(**inputs, return_dict=True)
    found: Tensor = output.logits if "logits" in output else output[0]
    return found


def verification_inputs(config: PretrainedConfig, seed: int) -> dict[str, Tensor]:
    """Random tokens, one of the examples padded."""
    sizes = read_sizes(config)
    length = min(48, sizes.get("positions") or 48)
    return random_inputs(sizes["vocabulary"], max(4, length - 4), batch_size=4, seed=seed)


@torch.no_grad()
def compare_with_cache(teacher: PreTrainedModel, student: PreTrainedModel, ids: Tensor) -> Difference | None:
    """Compare models that read in two parts, the first one from the cache; None where there is no cache."""
    if "use_cache" not in signature(student.forward).parameters or teacher.get_output_embeddings() is None:
        return None
    theirs, ours = _in_two_parts(teacher, ids), _in_two_parts(student, ids)
    return None if theirs is None or ours is None else difference_of(theirs, ours[..., : theirs.shape[-1]])


def _in_two_parts(model: PreTrainedModel, ids: Tensor) -> Tensor | None:
    half, name = ids.shape[1] // 2, name_of_cache(model)
    first = model(input_ids=ids[:, :half], use_cache=True, return_dict=True)
    cache = first.get(name)
    if cache is None:
        return None
    second = model(input_ids=ids[:, half:], use_cache=True, return_dict=True, **{name: cache})
    return torch.cat([first.logits, second.logits], dim=1)


def name_of_cache(model: PreTrainedModel) -> str:
    """What a model calls the cache that it takes and returns: `past_key_values` before transformers 5.24."""
    return "cache" if "cache" in signature(model.forward).parameters else "past_key_values"


def difference_of(theirs: Tensor, ours: Tensor) -> Difference:
    """Compare logits of one shape."""
    theirs, ours = theirs.double(), ours.double()
    largest = (theirs - ours).abs().max()
    agreement = float((theirs.argmax(-1) == ours.argmax(-1)).double().mean())
    return Difference(float(largest) if torch.isfinite(largest) else float("inf"), float(theirs.std()), agreement)


@torch.no_grad()
def training_loss(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> float:
    """Loss in training mode, dropout on, of the random tokens themselves: nats per token that is not padding."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model.train()
        logits = first_output(model, inputs)
        model.eval()
    read = inputs["attention_mask"].bool()
    return float(functional.cross_entropy(logits[read].float(), inputs["input_ids"][read]))


@contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Put a model into evaluation mode, and back."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
