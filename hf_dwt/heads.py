"""A model's head, run at a part of the positions at a time, so that no tensor of the size (tokens, vocabulary) exists.

The backbone, and what wraps the model, run once; the model's own code after the backbone is run again for each part.
The gradients of a part are taken at once, so that its logits can be dropped and need not be computed again. That of
the weight that makes the logits is as large as the weight: the parts add to one tensor.
"""

# Axes in names: N positions of a part, H hidden.

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from hf_dwt.positions import Positions, halt_at, logits_at

# Logits that one model holds at once: 64 MB in float32, or 128 MB on an accelerator, which wants larger products.
_MOST_LOGITS_ON_CPU = 2**24
_MOST_LOGITS_ELSEWHERE = 2**25


@dataclass(frozen=True)
class Head:
    """What is left to compute of a forward pass.

    Attributes:
        states: Shape (positions, features), with gradient where the model has one.
        logits_of: Turns rows of `states` into logits, shape (rows, vocabulary).
        parts: Rows that are to be taken together, in order.
    """

    states: Tensor
    logits_of: Callable[[Tensor], Tensor]
    parts: Sequence[slice]

    def logits(self, rows: slice) -> Tensor:
        """Logits at some of the positions, shape (rows, vocabulary)."""
        return self.logits_of(self.states[rows])


def whole_head(logits: Tensor) -> Head:
    """The head of a model that has run already, its logits of shape (positions, vocabulary), as one part."""
    return Head(logits, _unchanged, [slice(None)])


def head_at(model: nn.Module, inputs: Mapping[str, Any], positions: Positions, parts: Sequence[slice]) -> Head:
    """Run a model up to its head; or to its end, if there is one part only or the class needs the full path.

    Args:
        model: A language model, possibly wrapped; not sharded, if there are several parts.
        inputs: Its keyword arguments, without labels.
        positions: Where to predict.
        parts: As `parts_of` gives them.
    """
    halted = halt_at(model, inputs, positions) if len(parts) > 1 else None
    if halted is None:
        return whole_head(logits_at(model, inputs, positions))
    return Head(halted.states, partial(halted.logits_of, inputs=inputs), parts)


def parts_of(positions: Positions, vocab_size: int) -> list[slice]:
    """Cut positions into parts of one size whose logits fit the limit: the fewest, one if all fit or there are none."""
    num_positions, on_cpu = len(positions), positions.indices.device.type == "cpu"
    most = _MOST_LOGITS_ON_CPU if on_cpu else _MOST_LOGITS_ELSEWHERE
    num_parts = max(1, -(-num_positions * vocab_size // most))
    size = max(1, -(-num_positions // num_parts))
    return [slice(start, start + size) for start in range(0, max(num_positions, 1), size)]


def total_over_parts(head: Head, value_of: Callable[[Tensor, slice], Tensor]) -> Tensor:
    """Sum a value over the parts of a head; its gradient is computed with it, if there is more than one.

    Args:
        head: Of the model that is trained.
        value_of: Takes the logits of some rows, and the rows; returns a scalar.

    Returns:
        A scalar. Its gradient reaches the states and the parameters of the head.
    """
    if len(head.parts) == 1:
        return value_of(head.logits(head.parts[0]), head.parts[0])
    if not torch.is_grad_enabled():
        return torch.stack([value_of(head.logits(rows), rows) for rows in head.parts]).sum()
    values: list[Tensor] = []
    parameters: list[Tensor] = []
    gradients: list[Tensor] = []
    states_gradient = torch.zeros_like(head.states)
    weights = _SummedWeights()
    for rows in head.parts:
        states_NH = head.states[rows].detach().requires_grad_()
        with weights:
            logits_NV = head.logits_of(states_NH)
        value = value_of(logits_NV, rows)
        parameters = parameters or [leaf for leaf in _leaves(value) if leaf is not states_NH]
        states_gradient[rows], *own = torch.autograd.grad(value, [states_NH, *parameters])
        gradients = [known.add_(new) for known, new in zip(gradients, own, strict=True)] if gradients else _apart(own)
        values.append(value.detach())
    total = torch.stack(values).sum()
    known = [states_gradient, *gradients, *weights.gradients.values()]
    result: Tensor = _KnownGradients.apply(  # type: ignore[no-untyped-call]
        total, known, head.states, *parameters, *weights.gradients
    )
    return result


class _SummedWeights(TorchFunctionMode):
    """Within it, linear layers add the gradients of their weights to one tensor each, in `gradients`, by weight.

    Left to PyTorch are weights that are cast for each product (autocast), and those that are no plain parameters.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gradients: dict[Tensor, Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.linear or not _is_trained_as_it_is(*args, **kwargs):
            return func(*args, **kwargs)
        rows, weight, bias = _operands(*args, **kwargs)
        if weight not in self.gradients:
            self.gradients[weight] = torch.zeros_like(weight)
        product: Tensor = _Product.apply(rows, weight.detach(), self.gradients[weight])  # type: ignore[no-untyped-call]
        return product if bias is None else product + bias


class _Product(torch.autograd.Function):
    """Rows times a weight, whose gradient is added to a tensor that is there already."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(rows, weight)
        ctx.gradient = gradient
        return F.linear(rows, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        ctx.gradient.addmm_(grad.flatten(end_dim=-2).T, rows.flatten(end_dim=-2))
        return grad @ weight, None, None


def _operands(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
    """What `F.linear` is given, by place or by name."""
    return input, weight, bias


def _is_trained_as_it_is(*args: Any, **kwargs: Any) -> bool:
    rows, weight, _ = _operands(*args, **kwargs)
    is_plain = type(weight) is nn.Parameter and weight.requires_grad and weight.dtype == rows.dtype
    return is_plain and not torch.is_autocast_enabled(weight.device.type)


class _KnownGradients(torch.autograd.Function):
    """Gives a value the gradients that were computed with it."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: list[Tensor], *inputs: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("The gradients of a head that was run in parts are there for one backward pass only.")
        # In place: that of a head is as large as the head.
        gradients, ctx.gradients = ctx.gradients, None
        return None, None, *(_scaled_(gradient, scale) for gradient in gradients)


def _apart(gradients: Sequence[Tensor]) -> list[Tensor]:
    """The same gradients, none of which shares its memory with another: those of a sum's terms may."""
    seen: set[int] = set()
    apart = []
    for gradient in gradients:
        is_own = gradient.is_contiguous() and gradient.data_ptr() not in seen
        seen.add(gradient.data_ptr())
        apart.append(gradient if is_own else gradient.clone(memory_format=torch.contiguous_format))
    return apart


def _scaled_(gradient: Tensor, scale: Tensor) -> Tensor:
    if torch.promote_types(gradient.dtype, scale.dtype) == gradient.dtype:
        return gradient.mul_(scale)
    # A loss scale for float16 may itself be beyond float16.
    return (gradient.to(scale.dtype) * scale).to(gradient.dtype)


def _leaves(value: Tensor) -> list[Tensor]:
    """Tensors at which the gradient of a value ends."""
    found, seen, waiting = [], set(), [value.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name() == "torch::autograd::AccumulateGrad":
            found.append(node.variable)  # type: ignore[attr-defined]
        waiting += [each for each, _ in node.next_functions]
    return found


def _unchanged(logits: Tensor) -> Tensor:
    return logits
