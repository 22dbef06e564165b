"""Fused losses are the plain ones: in value, in gradient, over shapes, dtypes and blocks."""

import pytest
import torch
from reference_losses import shared_soft_loss
from torch import Tensor

from hf_dwt import fused_losses as module
from hf_dwt.fused_losses import Losses, fused_losses
from hf_dwt.losses import IGNORED_LABEL, hard_loss

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(params=[1, 40, 10**9], ids=["one row a block", "some rows a block", "one block"], autouse=True)
def _block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK_ON_CPU", request.param)


def logits(num_rows: int, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return (2 * torch.randn(num_rows, width)).to(dtype).requires_grad_()


def plain(student: Tensor, teacher: Tensor | None, labels: Tensor, temperature: float, smoothing: float) -> Losses:
    hard = hard_loss(student, labels, smoothing)
    if teacher is None:
        return Losses(hard, torch.zeros_like(hard), torch.zeros_like(hard), torch.ones_like(labels, dtype=torch.bool))
    known = labels < teacher.shape[-1]
    soft = shared_soft_loss(student, teacher, labels, temperature)
    return Losses(hard, soft, hard_loss(teacher, labels.where(known, IGNORED_LABEL), smoothing), known | ~known)


def gradient(losses: Losses, student: Tensor) -> Tensor:
    """Of a sum in which every position and both losses weigh differently."""
    weights = torch.linspace(1, 2, len(losses.hard))
    total = (weights * losses.hard).sum() + 3 * (weights.flip(0) * losses.soft).sum()
    return torch.autograd.grad(total, student)[0]


@pytest.mark.parametrize("num_rows", [0, 1, 13])
@pytest.mark.parametrize(("vocab_size", "num_shared"), [(2, 2), (7, 5), (131, 131), (131, None)])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("temperature", "smoothing"), [(1.0, 0.0), (2.0, 0.1)])
def test_values_and_gradients_are_those_of_the_plain_form(
    num_rows: int, vocab_size: int, num_shared: int | None, dtype: torch.dtype, temperature: float, smoothing: float
) -> None:
    student = logits(num_rows, vocab_size, dtype)
    teacher = None if num_shared is None else logits(num_rows, num_shared, dtype).detach()
    labels = torch.randint(vocab_size, (num_rows,)).masked_fill(torch.rand(num_rows) < 0.3, IGNORED_LABEL)
    # The plain form would round the gradients of both losses before it adds them.
    exact = student.detach().float().requires_grad_()
    actual = fused_losses(student, teacher, labels, temperature, smoothing)
    expected = plain(exact, teacher, labels, temperature, smoothing)
    for name, fused, formula in zip(Losses._fields, actual, expected, strict=True):
        assert (fused.shape, fused.dtype) == (formula.shape, formula.dtype), name
        torch.testing.assert_close(fused, formula, rtol=1e-5, atol=2e-6)
    fused = gradient(actual, student)
    assert fused.dtype == dtype
    tolerance = {"rtol": max(1e-5, torch.finfo(dtype).eps), "atol": 2e-6}
    torch.testing.assert_close(fused.float(), gradient(expected, exact), **tolerance)


def test_a_missing_term_would_be_noticed() -> None:
    student, teacher, labels = logits(13, 31), logits(13, 31).detach(), torch.randint(31, (13,))
    expected = gradient(plain(student, teacher, labels, 2.0, 0.0), student)
    for other in ((teacher, 1.0, 0.0), (None, 2.0, 0.0), (teacher, 2.0, 0.1)):
        actual = gradient(fused_losses(student, other[0], labels, *other[1:]), student)
        assert not torch.allclose(actual, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_soft_loss_of_equals_is_exactly_zero(dtype: torch.dtype) -> None:
    student = logits(5, 131, dtype)
    assert (fused_losses(student, student, torch.zeros(5, dtype=torch.int64), 3.0).soft == 0).all()


def test_no_gradient_flows_to_the_teacher() -> None:
    student, teacher = logits(5, 7), logits(5, 7)
    fused_losses(student, teacher, torch.zeros(5, dtype=torch.int64)).soft.sum().backward()
    assert student.grad is not None
    assert teacher.grad is None


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
def test_positions_are_told_at_which_the_teacher_is_broken(broken: float) -> None:
    teacher = logits(3, 5).detach()
    teacher[1, 3] = broken
    losses = fused_losses(logits(3, 5), teacher, torch.tensor([0, 1, 2]))
    assert losses.teacher_is_finite.tolist() == [True, False, True]


def test_large_half_precision_logits_are_not_broken() -> None:
    large = torch.full((1, 500), 6e4, dtype=torch.float16)
    assert fused_losses(large, large, torch.tensor([0])).teacher_is_finite.all()


@pytest.mark.parametrize("label", [7, -1])
def test_a_label_out_of_range_is_an_error_as_in_the_plain_form(label: int) -> None:
    for form in (hard_loss, lambda student, labels: fused_losses(student, None, labels)):
        with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
            form(logits(1, 7), torch.tensor([label]))
