"""Widths that are no multiple, where norms come after residual sums: not exact, but near.

A LayerNorm that follows a residual sum mixes all of its units, so that new ones disturb the old. They do not if they
always hold the mean of the old ones: then mean and variance stay what they were, up to a factor that the norm's weight
undoes. Everything here serves to let the new units hold that mean.

Legend: D old hidden units, P new ones. g, b weight and bias of a norm, n = (x - mean) / s what it computes inside.

- Where linear maps write (tables of embeddings, feed-forward units), the mean is linear and can be written exactly.
- What a norm writes has the mean (1/D) sum(g n + b). The part with n varies. Let e = (1/D) sum((g - mean(g)) x), so
  that e / s is that part. The new units of the norm's input hold the mean plus `_SMALL` * a * e, where the a of all new
  units sum to 0 and leave the mean alone; the norm's weight there is 1 / (`_SMALL` * a). The variance changes with the
  square of `_SMALL` * e only.
- In a layer, x is what attention's norm wrote plus what the feed-forward units write. Mean and e of the former are
  linear, and two feed-forward units pass on a linear value, since act(u) - act(-u) = u: four helpers in all.
- Before the head, x comes out of an activation, and no linear map knows its mean: new units predict it as well as a
  linear map of their input can, inside the activation. Where they miss it by m, all old units of n shift alike, and
  the new ones move by D/P of that the other way. The tied head reads them with the mean of what it reads the old ones
  with: with the mean of g as their weight, they undo the shift but for the part in which g varies.

Backbones come out equal to rounding; what stays is what the head's prediction leaves.
"""

import re
from collections.abc import Callable
from math import sqrt

import torch
from torch import Tensor
from transformers.activations import ACT2FN

from hf_dwt.remapping.axes import kind_of
from hf_dwt.remapping.blocks import Blocks
from hf_dwt.remapping.dataflow import HeadTransform
from hf_dwt.remapping.depth import PostNormBlock
from hf_dwt.remapping.width import Expansion

_SMALL = 0.05
NUM_HELPERS = 4


def balanced(num_new: int) -> Tensor:
    """Factors of the new units, none of them 0, that sum to 0; shape (num_new,), all 0 for a single unit."""
    factors = torch.ones(num_new, dtype=torch.float64)
    factors[1::2] = -1
    if num_new % 2:
        factors[:3] = torch.tensor([1.0, 1.0, -2.0])[: min(3, num_new)]
        factors[3::2], factors[4::2] = 1, -1
    return factors if num_new > 1 else torch.zeros(1, dtype=torch.float64)


def deviation(norm_weight: Tensor, written: Tensor) -> Tensor:
    """e of what is written, see above.

    Args:
        norm_weight: g, shape (D,).
        written: Hidden units last, shape (..., D).
    """
    return written @ (norm_weight - norm_weight.mean()) / len(norm_weight)


def new_units(norm_weight: Tensor, written: Tensor, num_new: int) -> Tensor:
    """What new units hold beside old ones that are written linearly, shape (..., P)."""
    spread = deviation(norm_weight, written).unsqueeze(-1) * (balanced(num_new) * _SMALL).to(written.dtype)
    return written.mean(-1, keepdim=True) + spread


def carrying_norm(weight: Tensor, bias: Tensor, num_new: int) -> tuple[Tensor, Tensor]:
    """Weight and bias of a norm whose new units carry the mean of what it writes."""
    factor = sqrt(len(weight) / (len(weight) + num_new))
    units = balanced(num_new)
    added = torch.where(units == 0, 0.0, factor / (units * _SMALL)).to(weight.dtype)
    grown = torch.cat([weight * factor, added])
    return grown, torch.cat([bias, bias.mean().expand(num_new)])


def helper_readers(norm_weight: Tensor) -> Tensor:
    """Rows by which the helpers read the mean and the deviation, with both signs, shape (4, D)."""
    size = len(norm_weight)
    mean = torch.full_like(norm_weight, 1 / size)
    spread = (norm_weight - norm_weight.mean()) / size
    return torch.stack([mean, -mean, spread, -spread])


def helper_writers(num_new: int) -> Tensor:
    """Columns by which the helpers write to the new units, shape (P, 4)."""
    units = balanced(num_new) * _SMALL
    return torch.stack([torch.ones_like(units), -torch.ones_like(units), units, -units], dim=1)


def mean_predictor(
    weight: Tensor, bias: Tensor, activation: Callable[[Tensor], Tensor], norm_weight: Tensor, norm_bias: Tensor
) -> tuple[Tensor, Tensor]:
    """The row and bias of a unit that predicts the mean of all others behind an activation.

    What the norm before computes inside is taken as independent and normal, so that each product is normal; means over
    it are sums over quantiles. The best linear prediction of act(u) then has the mean slope of act (Stein's lemma).

    Args:
        weight: Of the matrix before the activation, shape (D, D).
        bias: Shape (D,).
        activation: Elementwise.
        norm_weight: g of the norm that the matrix reads, shape (D,).
        norm_bias: b, shape (D,).
    """
    quantiles = torch.special.ndtri((torch.arange(63, dtype=torch.float64) + 0.5) / 63)
    weight, bias, norm_bias = weight.double(), bias.double(), norm_bias.double()
    spread = (weight * norm_weight.double()).norm(dim=1)
    sums = (weight @ norm_bias + bias) + spread * quantiles[:, None]
    values, slopes = _with_slopes(activation, sums)
    constant = _inverse(activation, float(values.mean()))
    _, own_slope = _with_slopes(activation, constant)
    row = (slopes.mean(0)[:, None] * weight).mean(0) / own_slope
    return row, constant - row @ norm_bias


def _with_slopes(activation: Callable[[Tensor], Tensor], at: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        at = at.detach().requires_grad_(True)
        values = activation(at)
        (slopes,) = torch.autograd.grad(values.sum(), at)
    return values.detach(), slopes


def _inverse(activation: Callable[[Tensor], Tensor], value: float) -> Tensor:
    """Where an activation that rises beyond -0.7 takes a value, by bisection."""
    low, high = torch.tensor(-0.7, dtype=torch.float64), torch.tensor(20.0, dtype=torch.float64)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if float(activation(middle)) < value else (low, middle)
    return high


class NearWidth:
    """Adjusts what was grown with new hidden units, so that the norms hardly notice them.

    Args:
        blocks: Of the class.
        old: Reads a parameter of the teacher, in float32.
        num_new: New hidden units, P; they come last.
        num_layers: Of the teacher.
        intermediate: How the feed-forward units grew.

    Raises:
        ValueError: If fewer than four new feed-forward units are there to help.
    """

    def __init__(
        self,
        blocks: Blocks,
        old: Callable[[str], Tensor],
        num_new: int,
        num_layers: int,
        intermediate: Expansion | None,
    ) -> None:
        self._blocks, self._old, self._num_new = blocks, old, num_new
        self._last_layer = num_layers - 1
        parts, flow = blocks.anatomy.parts, blocks.anatomy.flow
        self._block = blocks.post_norm if flow.post_norm else None
        widens = flow.head is not None and parts[f"{flow.head.norm}.weight"].dimensions[0].segments == ("hidden",)
        self._head = flow.head if widens else None
        spare = intermediate.new.nonzero().flatten() if intermediate is not None else torch.empty(0)
        if self._block is not None and len(spare) < NUM_HELPERS:
            raise ValueError(
                f"To grow the width near the teacher, {NUM_HELPERS} feed-forward units have to be new; {len(spare)} "
                "are. Let the intermediate size grow too."
            )
        self._helpers = spare[:NUM_HELPERS]

    def adjusted(self, grown: Tensor, source: str) -> Tensor:
        """Adjust a parameter.

        Args:
            grown: As it came out.
            source: Its name in the teacher.
        """
        owner, _, end = source.rpartition(".")
        module, block, head = kind_of(owner), self._block, self._head
        if module == self._blocks.embedding_norm or (block is not None and module == block.norm):
            return self._carrying(owner, end)
        if self._is_table(kind_of(source)):
            norm = self._blocks.embedding_norm
            size = grown.shape[-1] - self._num_new
            added = new_units(self._old(f"{norm}.weight"), grown[..., :size], self._num_new)
            return torch.cat([grown[..., :size], added], dim=-1)
        if head is not None and module == head.norm and not self._predicts(head):
            return torch.cat([self._old(source), grown.new_zeros(self._num_new)])
        if head is not None and module == head.matrix:
            return self._predicting(grown, owner, end, head)
        if block is None or module not in (block.attention_out, block.up, block.down):
            return grown
        flipped = grown.dim() == 2 and self._blocks.anatomy.parts[kind_of(source)].roles == ("read", "write")
        matrix = grown.T if flipped else grown
        adjust = self._helped_up if module == block.up else self._writing
        matrix = adjust(matrix, owner, block)
        return matrix.T if flipped else matrix

    def _is_table(self, kind: str) -> bool:
        if self._blocks.embedding_norm is None:
            return False
        part = self._blocks.anatomy.part(kind, {})
        return "*" not in kind and part.roles == ("rows", "write") and part.dimensions[1].segments == ("hidden",)

    def _carrying(self, owner: str, end: str) -> Tensor:
        weight, bias = self._norm(owner)
        grown_weight, grown_bias = carrying_norm(weight, bias, self._num_new)
        return grown_weight if end == "weight" else grown_bias

    def _writing(self, matrix: Tensor, owner: str, block: PostNormBlock) -> Tensor:
        """Less the mean; to new units nothing, or what the norm after the feed-forward units shall carry."""
        size = len(matrix) - self._num_new
        old = matrix[:size] - matrix[:size].mean(0, keepdim=True)
        if kind_of(owner) == block.attention_out:
            return torch.cat([old, torch.zeros_like(matrix[size:])])
        weight, _ = self._norm(in_layer_of(owner, block.norm))
        added = new_units(weight, old.movedim(0, -1), self._num_new).movedim(-1, 0)
        if matrix.dim() == 2:
            added[:, self._helpers] = helper_writers(self._num_new).to(added.dtype)
        return torch.cat([old, added])

    def _helped_up(self, matrix: Tensor, owner: str, block: PostNormBlock) -> Tensor:
        rows = torch.zeros_like(matrix[self._helpers])
        if matrix.dim() == 2:
            weight, _ = self._norm(in_layer_of(owner, block.norm))
            rows[:, : len(weight)] = helper_readers(weight)
        return matrix.index_copy(0, self._helpers, rows)

    def _predicting(self, grown: Tensor, owner: str, end: str, head: HeadTransform) -> Tensor:
        norm_weight, norm_bias = self._norm(self._last(head.norm_before))
        size = len(grown) - self._num_new
        if not self._predicts(head):
            # A prediction needs a bias. Copies of old units have about the mean and the variance of all.
            return torch.cat([grown[:size], grown[torch.arange(self._num_new) % size]])
        row, bias = mean_predictor(
            self._old(f"{owner}.weight"), self._bias(owner), ACT2FN[head.activation], norm_weight, norm_bias
        )
        if end == "bias":
            return torch.cat([grown[:size], bias.to(grown.dtype).expand(self._num_new)])
        added = torch.cat([row, row.new_zeros(self._num_new)]).to(grown.dtype)
        return torch.cat([grown[:size], added.expand(self._num_new, -1)])

    def _last(self, name: str) -> str:
        """The full name in this teacher of what is in the last layer of a tiny one; shared layers have one name."""
        in_layers = name.startswith(tuple(f"{prefix}." for prefix in self._blocks.anatomy.layers))
        return kind_of(name).replace("*", str(self._last_layer)) if in_layers else name

    def _predicts(self, head: HeadTransform) -> bool:
        return f"{head.matrix}.bias" in self._blocks.anatomy.parts

    def _norm(self, owner: str) -> tuple[Tensor, Tensor]:
        return self._old(f"{owner}.weight"), self._bias(owner)

    def _bias(self, owner: str) -> Tensor:
        try:
            return self._old(f"{owner}.bias")
        except KeyError:
            return torch.zeros(len(self._old(f"{owner}.weight")))


def in_layer_of(name: str, kind: str) -> str:
    """The full name of a kind of module in the layer that another module is in."""
    numbers = iter(re.findall(r"(?<=\.)\d+(?=\.)", name))
    return re.sub(r"\*", lambda _: next(numbers), kind)
