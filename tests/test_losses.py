import pytest
import torch
from reference_losses import shared_soft_loss
from torch import Tensor
from transformers.trainer_pt_utils import LabelSmoother

from hf_dwt.losses import IGNORED_LABEL, blended_loss, hard_loss, share_of_step, soft_loss

grid = [
    pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 5), (2, 3, 7)], ids=str),
    pytest.mark.parametrize("vocab_size", [2, 7, 131]),
    pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str),
]


def over_the_grid(test):
    for mark in grid:
        test = mark(test)
    return test


def plain_log_probabilities(logits: Tensor) -> Tensor:
    return logits - logits.exp().sum(dim=-1, keepdim=True).log()


def plain_hard_loss(logits: Tensor, labels: Tensor) -> Tensor:
    chosen = labels.clamp(min=0).unsqueeze(-1)
    loss = -plain_log_probabilities(logits).gather(-1, chosen).squeeze(-1)
    return torch.where(labels == IGNORED_LABEL, 0.0, loss)


def plain_soft_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    student, teacher = plain_log_probabilities(student / temperature), plain_log_probabilities(teacher / temperature)
    return (teacher.exp() * (teacher - student)).sum(dim=-1)


def random_logits(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return (2 * torch.randn(shape)).to(dtype).requires_grad_()


def random_labels(shape: tuple[int, ...], vocab_size: int) -> Tensor:
    labels = torch.randint(vocab_size, shape)
    return torch.where(torch.rand(shape) < 0.3, IGNORED_LABEL, labels)


def gradients(loss: Tensor, *inputs: Tensor) -> list[Tensor]:
    """Gradients of a sum whose terms have different weights, so that no term can stand for another."""
    weights = torch.linspace(1, 2, loss.numel(), dtype=loss.dtype).view_as(loss)
    return [each.double() for each in torch.autograd.grad((weights * loss).sum(), inputs)]


def assert_close(actual: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """Compare what was rounded to `dtype` with float64."""
    tolerance = max(1e-5, torch.finfo(dtype).eps)
    torch.testing.assert_close(actual.double(), expected.double(), rtol=tolerance, atol=min(tolerance, 1e-3))


@over_the_grid
def test_hard_loss_is_the_plain_formula_in_value_and_gradient(shape, vocab_size, dtype):
    logits, labels = random_logits(*shape, vocab_size, dtype=dtype), random_labels(shape, vocab_size)
    exact = logits.detach().double().requires_grad_()
    loss, expected = hard_loss(logits, labels), plain_hard_loss(exact, labels)
    assert (loss.shape, loss.dtype) == (shape, torch.float32)
    assert_close(loss, expected, torch.float32)
    assert_close(gradients(loss, logits)[0], gradients(expected, exact)[0], dtype)


@over_the_grid
@pytest.mark.parametrize("temperature", [0.5, 1, 2, 7])
def test_soft_loss_is_the_plain_formula_in_value_and_gradient(shape, vocab_size, dtype, temperature):
    student = random_logits(*shape, vocab_size, dtype=dtype)
    teacher = random_logits(*shape, vocab_size, dtype=dtype)
    exact = [each.detach().double().requires_grad_() for each in (student, teacher)]
    loss, expected = soft_loss(student, teacher, temperature), plain_soft_loss(*exact, temperature)
    assert (loss.shape, loss.dtype) == (shape, torch.float32)
    assert_close(loss, expected, torch.float32)
    for actual, plain in zip(gradients(loss, student, teacher), gradients(expected, *exact), strict=True):
        assert_close(actual, plain, dtype)


def test_logits_of_different_dtypes_are_compared_in_float32():
    student, teacher = random_logits(3, 7, dtype=torch.float16), random_logits(3, 7, dtype=torch.bfloat16)
    expected = plain_soft_loss(student.double(), teacher.double(), 1.0)
    assert_close(soft_loss(student, teacher), expected, torch.float32)


def test_half_precision_arithmetic_would_be_noticed():
    student, teacher = random_logits(50, 131, dtype=torch.bfloat16), random_logits(50, 131, dtype=torch.bfloat16)
    in_half = plain_soft_loss(student, teacher, 1.0)
    with pytest.raises(AssertionError):
        assert_close(in_half, plain_soft_loss(student.double(), teacher.double(), 1.0), torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("temperature", [0.5, 1, 2, 7])
def test_soft_loss_of_identical_models_is_exactly_zero(dtype, temperature):
    logits = random_logits(3, 5, 131, dtype=dtype)
    assert (soft_loss(logits, logits.detach(), temperature) == 0).all()
    assert (soft_loss(logits, logits.detach() + 1, temperature).abs() < 1e-6).all() or dtype != torch.float32


def test_soft_loss_is_the_divergence_from_teacher_to_student_not_the_reverse():
    student, teacher = random_logits(5, 7), random_logits(5, 7)
    assert_close(soft_loss(student, teacher), plain_soft_loss(student.double(), teacher.double(), 1), torch.float32)
    assert not torch.allclose(soft_loss(student, teacher), soft_loss(teacher, student))


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_ignored_labels_change_nothing(label_smoothing):
    logits, labels = random_logits(6, 7), torch.tensor([3, IGNORED_LABEL, 0, IGNORED_LABEL, 6, IGNORED_LABEL])
    asked = labels != IGNORED_LABEL
    few = logits.detach()[asked].requires_grad_()
    loss, expected = hard_loss(logits, labels, label_smoothing), hard_loss(few, labels[asked], label_smoothing)
    assert torch.equal(loss[asked], expected)
    assert (loss[~asked] == 0).all()
    loss.sum().backward()
    expected.sum().backward()
    assert torch.equal(logits.grad[asked], few.grad)
    assert (logits.grad[~asked] == 0).all()


@pytest.mark.parametrize("broken", [float("inf"), float("nan")])
def test_broken_logits_at_an_ignored_label_leave_the_value_but_not_the_gradient(broken):
    logits = torch.tensor([[1.0, broken, 0.0], [1.0, 2.0, 0.0]], requires_grad=True)
    loss = hard_loss(logits, torch.tensor([IGNORED_LABEL, 1]))
    assert loss[0] == 0
    assert loss.isfinite().all()
    loss.sum().backward()
    assert logits.grad[0].isnan().all(), "as in `torch.nn.functional.cross_entropy`; a broken model is not hidden"
    assert logits.grad[1].isfinite().all()


@pytest.mark.parametrize("label_smoothing", [0.1, 0.9])
def test_label_smoothing_is_that_of_transformers(label_smoothing):
    logits, labels = random_logits(2, 5, 7), random_labels((2, 5), 7)
    ours = hard_loss(logits, labels, label_smoothing).sum() / (labels != IGNORED_LABEL).sum()
    theirs = LabelSmoother(epsilon=label_smoothing)({"logits": logits}, labels.clone())
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(gradients(ours, logits), gradients(theirs, logits))
    assert not torch.isclose(ours, hard_loss(logits, labels).sum() / (labels != IGNORED_LABEL).sum())


def test_shared_soft_loss_is_taken_over_the_shared_tokens_renormalised():
    student, teacher, labels = random_logits(4, 9), random_logits(4, 7), torch.tensor([0, 6, 3, 1])
    expected = plain_soft_loss(student[:, :7].double(), teacher.double(), 2.0)
    assert_close(shared_soft_loss(student, teacher, labels, 2.0), expected, torch.float32)


def test_shared_soft_loss_without_padding_rows_is_the_soft_loss():
    student, teacher, labels = random_logits(4, 7), random_logits(4, 7), torch.tensor([0, 6, 3, 1])
    assert torch.equal(shared_soft_loss(student, teacher, labels, 3.0), soft_loss(student, teacher, 3.0))


def test_rows_that_the_teacher_lacks_get_no_gradient_from_it():
    student, teacher, labels = random_logits(4, 9), random_logits(4, 7), torch.tensor([0, 6, 3, 1])
    shared_soft_loss(student, teacher, labels).sum().backward()
    assert (student.grad[:, 7:] == 0).all()
    assert (student.grad[:, :7] != 0).all()


def test_there_is_no_soft_loss_where_the_teacher_lacks_the_label():
    student, teacher, labels = random_logits(4, 9), random_logits(4, 7), torch.tensor([6, 7, 8, 0])
    loss = shared_soft_loss(student, teacher, labels)
    assert (loss == 0).tolist() == [False, True, True, False]
    loss.sum().backward()
    assert (student.grad == 0).all(dim=-1).tolist() == [False, True, True, False]


def blended(hard: Tensor, soft: Tensor, num_items: Tensor | int) -> Tensor:
    return share_of_step(blended_loss(hard, soft, hard_loss_weight=0.5, soft_loss_weight=4.0), num_items)


def test_blended_loss_is_the_weighted_sum_divided_by_the_positions_of_the_step():
    hard, soft = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0.5, 0.0, 1.5])
    assert blended(hard, soft, num_items=10).item() == pytest.approx((0.5 * 7 + 4 * 2) / 10)
    assert blended(hard, soft, num_items=torch.tensor(10)).shape == ()


@pytest.mark.parametrize("num_items", [0, torch.tensor(0)], ids=["int", "tensor"])
def test_no_position_gives_a_finite_zero_without_gradient(num_items):
    student = random_logits(0, 7)
    labels = torch.empty(0, dtype=torch.int64)
    loss = blended(hard_loss(student, labels), shared_soft_loss(student, random_logits(0, 7), labels), num_items)
    assert loss.item() == 0
    head = torch.nn.Linear(3, 7)
    states = torch.randn(0, 3)
    blended(hard_loss(head(states), labels), soft_loss(head(states), torch.randn(0, 7)), num_items).backward()
    assert (head.weight.grad == 0).all()


@pytest.mark.parametrize("cuts", [[12], [4, 4, 4], [1, 0, 9, 2]])
def test_micro_batches_of_any_sizes_sum_to_the_same_loss_and_gradient(cuts):
    student, teacher, labels = random_logits(12, 7), torch.randn(12, 7), random_labels((12,), 7)
    whole = blended(hard_loss(student, labels), soft_loss(student, teacher), num_items=12)
    parts = [
        blended(hard_loss(*rows[:2]), soft_loss(rows[0], rows[2]), num_items=12)
        for rows in zip(*(each.split(cuts) for each in (student, labels, teacher)), strict=True)
    ]
    torch.testing.assert_close(sum(parts), whole)
    torch.testing.assert_close(gradients(sum(parts), student), gradients(whole, student))
