"""The soft loss of the most likely tokens and a bucket or drawn ones, against plain formulas and the divergence."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from hf_dwt import fused_losses as fused_losses_room
from hf_dwt.fused_losses import fused_losses
from hf_dwt.losses import soft_loss
from hf_dwt.topk_losses import Excerpt, excerpt_losses, excerpt_of, top_k_soft_loss


def logits(num: int = 6, vocabulary: int = 30, seed: int = 0, scale: float = 2.0) -> Tensor:
    return scale * torch.randn(num, vocabulary, generator=torch.Generator().manual_seed(seed))


def labels(num: int = 6, vocabulary: int = 30) -> Tensor:
    return torch.arange(num) * 5 % vocabulary


def plain(student: Tensor, teacher: Tensor, top_k: int) -> Tensor:
    p, q = teacher.double().softmax(-1), student.double().softmax(-1)
    ids = p.topk(top_k).indices
    kept_p, kept_q = p.gather(-1, ids), q.gather(-1, ids)
    rest_p, rest_q = 1 - kept_p.sum(-1), 1 - kept_q.sum(-1)
    return (kept_p * (kept_p / kept_q).log()).sum(-1) + rest_p * (rest_p / rest_q).log()


def draws(num: int = 6, num_drawn: int = 9, seed: int = 3) -> Tensor:
    return torch.rand(num, num_drawn, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain_drawn(student: Tensor, teacher: Tensor, top_k: int, drawn: Tensor) -> Tensor:
    log_p, log_q = teacher.double().log_softmax(-1), student.double().log_softmax(-1)
    kept = log_p.topk(top_k).indices
    ratios = log_p - log_q
    rest = 1 - log_p.gather(-1, kept).exp().sum(-1)
    of_kept = (log_p.gather(-1, kept).exp() * ratios.gather(-1, kept)).sum(-1)
    return of_kept + rest * ratios.gather(-1, drawn).mean(-1)


@pytest.mark.parametrize("top_k", [1, 7, 29])
@pytest.mark.parametrize("num_drawn", [1, 9])
def test_values_and_gradients_of_drawn_tokens_are_those_of_the_formula(num_drawn: int, top_k: int) -> None:
    ours, theirs = logits().requires_grad_(), logits().requires_grad_()
    teacher = logits(seed=1)
    kept = excerpt_of(teacher, labels(), top_k, draws(num_drawn=num_drawn))
    assert kept.ids.shape == kept.logs.shape == (6, top_k + num_drawn)
    drawn = kept.ids[:, top_k:]
    assert num_drawn == 1 or any(len(set(row)) < len(row) for row in drawn.tolist()), "some should be drawn twice"
    expected = plain_drawn(theirs, teacher, top_k, drawn)
    loss = excerpt_losses(ours, kept, labels()).soft
    assert torch.allclose(loss.double(), expected, atol=1e-5)
    assert torch.allclose(top_k_soft_loss(ours, kept).double(), expected, atol=1e-5)
    loss.sum().backward()
    expected.sum().backward()
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-5)


@pytest.mark.parametrize("num_drawn", [1, 3])
def test_drawn_tokens_are_right_on_average_in_value_and_gradient_where_a_bucket_is_not(num_drawn: int) -> None:
    one, other, bucket = (logits(1).requires_grad_() for _ in range(3))
    num, teacher, asked = 20_000, logits(1, seed=1, scale=1.0), labels(1)
    # Each draw takes all values in turn.
    evenly = (torch.arange(num, dtype=torch.float64)[:, None] + 0.5) / num
    evenly = (evenly + torch.arange(num_drawn)) / num_drawn
    kept = excerpt_of(teacher.expand(num, -1), asked.expand(num), 4, evenly)
    soft = excerpt_losses(one.expand(num, -1), kept, asked.expand(num)).soft
    whole = soft_loss(other, teacher)
    assert soft.mean().item() == pytest.approx(whole.item(), abs=2e-3)
    assert soft.min().item() < whole.item() - 0.5
    soft.mean().backward()
    whole.sum().backward()
    assert torch.allclose(one.grad, other.grad, atol=2e-4)
    loss = excerpt_losses(bucket, excerpt_of(teacher, asked, 4), asked).soft
    assert loss.item() < whole.item() - 0.5
    loss.sum().backward()
    assert not torch.allclose(bucket.grad, other.grad, atol=1e-2)


def test_each_token_but_the_kept_ones_is_drawn_as_often_as_it_is_likely() -> None:
    teacher, num = logits(1, seed=1), 100_000
    evenly = ((torch.arange(num, dtype=torch.float64) + 0.5) / num)[:, None]
    kept = excerpt_of(teacher.expand(num, -1), labels(1).expand(num), 4, evenly)
    shares = kept.ids[:, 4].bincount(minlength=30) / num
    expected = teacher.softmax(-1)[0].scatter(0, kept.ids[0, :4], 0.0)
    assert torch.allclose(shares, expected / expected.sum(), atol=1e-4)
    assert torch.allclose(kept.weights.sum(-1), torch.ones(num), atol=1e-5)


def test_unlikely_tokens_are_drawn_too() -> None:
    # Behind a likely token, steps of 1e-8 are lost in sums that are kept in float32.
    num, each = 1000, 1e-8
    probabilities = torch.full((50_000,), each)
    probabilities[:2] = torch.tensor([0.7495, 0.25])
    middles = (0.25 + each * (20_000 + torch.arange(num, dtype=torch.float64))) / (0.25 + 49_998 * each)
    kept = excerpt_of(probabilities.log()[None], labels(1), 1, middles[None])
    assert len(set(kept.ids[0, 1:].tolist())) > 0.9 * num


def test_where_no_mass_is_left_nothing_is_drawn_and_nothing_breaks() -> None:
    teacher = torch.zeros(6, 30)
    teacher[:, 7] = 200.0
    kept = excerpt_of(teacher, labels(), 1, draws())
    student = logits().requires_grad_()
    losses = excerpt_losses(student, kept, labels())
    torch.testing.assert_close(losses.soft, -student.log_softmax(-1)[:, 7], atol=1e-5, rtol=1e-5)
    losses.soft.sum().backward()
    assert student.grad.isfinite().all()
    assert excerpt_of(teacher, labels(), 30, draws()).num_drawn == 0


@pytest.mark.parametrize("top_k", [1, 7, 29])
def test_values_and_gradients_are_those_of_the_formula(top_k: int) -> None:
    ours, theirs = logits().requires_grad_(), logits().requires_grad_()
    teacher = logits(seed=1)
    loss = top_k_soft_loss(ours, excerpt_of(teacher, labels(), top_k))
    expected = plain(theirs, teacher, top_k)
    assert torch.allclose(loss.double(), expected, atol=1e-5)
    loss.sum().backward()
    expected.sum().backward()
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-5)


def test_it_is_a_lower_bound_that_rises_to_the_divergence() -> None:
    student, teacher = logits(), logits(seed=1)
    bounds = [top_k_soft_loss(student, excerpt_of(teacher, labels(), top_k)) for top_k in (1, 3, 10, 29, 30, 99)]
    whole = soft_loss(student, teacher)
    for smaller, larger in pairwise(bounds):
        assert (smaller <= larger + 1e-5).all()
    assert (bounds[0] >= -1e-6).all()
    assert (bounds[0] < whole - 1e-3).any()
    assert torch.allclose(bounds[-1], whole, atol=1e-6)


@pytest.mark.parametrize(("dtype", "within"), [(torch.float16, 1e-2), (torch.float32, 1e-6)])
def test_with_the_whole_vocabulary_it_is_the_divergence(dtype: torch.dtype, within: float) -> None:
    vocabulary, asked = 30_522, labels(20, 30_522)
    teacher = logits(20, vocabulary, seed=1)
    kept = excerpt_of(teacher, asked, vocabulary)
    stored = Excerpt(vocabulary, kept.ids.int(), kept.logs.to(dtype), kept.rest, kept.label_logs)
    for distance in (1.0, 0.01):
        student = teacher + logits(20, vocabulary, scale=distance)
        whole = soft_loss(student, teacher)
        for ours in (top_k_soft_loss(student, stored), excerpt_losses(student, stored, asked).soft):
            assert float((ours - whole).abs().max()) < within


def test_the_loss_of_16_kept_tokens_of_30_thousand_is_within_a_percent_for_a_peaked_teacher() -> None:
    # Probabilities that fall with the rank as a trained model's do, most of the mass in front.
    ranks = torch.arange(1, 30_523).float()
    order = torch.stack([torch.randperm(30_522, generator=torch.Generator().manual_seed(seed)) for seed in range(8)])
    teacher = (-2.5 * ranks.log()).expand(8, -1).gather(-1, order)
    student, asked = teacher + 0.8 * logits(8, 30_522, scale=1.0), teacher.argmax(-1)
    live, kept = fused_losses(student, teacher, asked), excerpt_losses(student, excerpt_of(teacher, asked, 16), asked)
    assert float((kept.hard + kept.soft).mean()) == pytest.approx(float((live.hard + live.soft).mean()), rel=0.01)
    assert float(kept.soft.mean()) == pytest.approx(float(live.soft.mean()), rel=0.02)


def test_all_losses_are_those_of_the_logits_where_all_tokens_are_kept() -> None:
    student, teacher = logits(vocabulary=32), logits(seed=1)
    asked = torch.tensor([0, 5, 31, 29, 30, 2])  # two of which the teacher lacks
    ours = excerpt_losses(student, excerpt_of(teacher, asked, 30), asked)
    for mine, expected in zip(ours, fused_losses(student, teacher, asked), strict=True):
        assert torch.allclose(mine.float(), expected.float(), atol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("scale", [2.0, 60.0], ids=["usual", "certain"])
@pytest.mark.parametrize("num_drawn", [0, 9])
@pytest.mark.parametrize(("num_shared", "top_k"), [(30, 1), (30, 7), (30, 30), (26, 7), (26, 26)])
def test_one_pass_has_the_values_and_gradients_of_the_plain_forms(
    num_shared: int, top_k: int, num_drawn: int, scale: float, smoothing: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused_losses_room, "_BLOCK_ON_CPU", 2 * 30)
    teacher, asked = logits(vocabulary=num_shared, seed=1, scale=scale), torch.tensor([0, 5, 25, 29, -100, 2])
    drawn = draws(num_drawn=num_drawn) if num_drawn else None
    kept = excerpt_of(teacher, asked.clamp_min(0), top_k, drawn)
    # Half of the mass that was kept: what comes back from float16 need not sum to 1 either.
    kept = replace(kept, ids=kept.ids.int(), logs=kept.logs - 0.5)
    one, other = logits(scale=scale).requires_grad_(), logits(scale=scale).requires_grad_()
    losses = excerpt_losses(one, kept, asked, smoothing)
    hard = cross_entropy(other, asked, reduction="none", label_smoothing=smoothing)
    soft = top_k_soft_loss(other, kept).where(asked < num_shared, 0.0)
    for ours, expected in ((losses.hard, hard), (losses.soft, soft)):
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
    assert (losses.teacher_hard is None) is bool(smoothing)
    (losses.hard @ torch.arange(6.0) + 3 * losses.soft.sum()).backward()
    (hard @ torch.arange(6.0) + 3 * soft.sum()).backward()
    assert float(other.grad.abs().max()) > 0.1
    torch.testing.assert_close(one.grad, other.grad, atol=1e-5, rtol=1e-5)


def test_half_precision_is_computed_in_float32() -> None:
    student, kept = logits(scale=4.0).bfloat16().requires_grad_(), excerpt_of(logits(seed=1), labels(), 4)
    losses = excerpt_losses(student, kept, labels())
    exact = excerpt_losses(student.float(), kept, labels())
    assert torch.equal(losses.hard, exact.hard)
    assert torch.equal(losses.soft, exact.soft)
    losses.soft.sum().backward()
    assert student.grad.dtype == torch.bfloat16


def test_no_position_at_all_has_no_loss() -> None:
    student, none = logits().requires_grad_(), slice(0)
    losses = excerpt_losses(student[none], excerpt_of(logits(seed=1), labels(), 4)[none], labels()[none])
    (losses.hard.sum() + losses.soft.sum()).backward()
    assert student.grad.abs().sum() == 0


def test_what_is_not_finite_is_noticed() -> None:
    kept = excerpt_of(logits(), labels(), 4)
    kept.rest[2] = torch.nan
    finite = excerpt_losses(logits(), kept, labels()).teacher_is_finite
    assert finite.tolist() == [True, True, False, True, True, True]


def test_rows_are_taken_together() -> None:
    kept = excerpt_of(logits(), labels(), 4)
    part = kept[slice(2, 4)]
    assert excerpt_of(logits(), labels(), 4, draws())[slice(2, 4)].num_drawn == 9
    assert torch.equal(part.ids, kept.ids[2:4])
    assert torch.equal(part.label_logs, kept.label_logs[2:4])
