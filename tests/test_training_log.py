import pytest
import torch

from hf_dwt.fused_losses import Losses, fused_losses
from hf_dwt.training_log import TrainingLog


def alone(values):
    """Sum over one rank."""
    return values


def losses(hard, soft=None, teacher_hard=None, finite=None):
    """Losses per position; what is not given is as without a teacher."""
    hard = torch.as_tensor(hard)
    zeros, all_finite = torch.zeros_like(hard), torch.ones_like(hard, dtype=torch.bool)
    given = [zeros if each is None else torch.as_tensor(each) for each in (soft, teacher_hard)]
    return Losses(hard, *given, all_finite if finite is None else torch.as_tensor(finite))


def add_both(log, of_positions, knows):
    """Count a micro-batch as the trainer does."""
    log.add(of_positions, of_positions.hard.sum(), 1.0)
    log.add_teacher(of_positions, torch.as_tensor(knows))


def test_means_are_over_positions_not_over_batches():
    log = TrainingLog()
    log.add(losses(torch.tensor([1.0, 2.0, 6.0])), torch.tensor(10.0), soft_loss_weight=4.0)
    log.add(losses(torch.tensor([3.0])), torch.tensor(2.0), soft_loss_weight=2.0)
    assert log.pop_means(alone) == pytest.approx({"loss": 3.0, "hard_loss": 3.0, "soft_loss_weight": 3.5})


def test_what_was_not_computed_is_absent():
    log = TrainingLog()
    assert log.pop_means(alone) == {}
    log.add(losses(torch.tensor([1.0])), torch.tensor(1.0), 0.0)
    assert log.pop_means(alone).keys() == {"loss", "hard_loss", "soft_loss_weight"}
    add_both(log, losses(torch.rand(3)), [False, False, False])
    assert log.pop_means(alone).keys() == {"loss", "hard_loss", "soft_loss_weight"}, "no label is the teacher's"
    add_both(log, losses(torch.rand(3), soft=torch.rand(3)), [True, True, True])
    assert log.pop_means(alone).keys() >= {"soft_loss", "teacher_hard_loss", "train_gap"}


def test_no_position_gives_no_means():
    log = TrainingLog()
    log.add(losses(torch.empty(0)), torch.tensor(0.0), 1.0)
    assert log.pop_means(alone) == {}


def test_every_log_starts_anew():
    log = TrainingLog()
    log.add(losses(torch.tensor([1.0])), torch.tensor(1.0), 1.0)
    log.pop_means(alone)
    assert log.pop_means(alone) == {}
    log.add(losses(torch.tensor([5.0])), torch.tensor(5.0), 1.0)
    assert log.pop_means(alone)["hard_loss"] == 5.0


def test_the_teachers_figures_are_over_the_positions_whose_label_it_knows():
    log = TrainingLog()
    add_both(log, losses([1.0, 2.0, 4.0], soft=[0.5, 0.0, 0.3], teacher_hard=[0.2, 0.0, 0.6]), [True, False, True])
    expected = {"soft_loss": 0.4, "teacher_hard_loss": 0.4, "train_gap": 2.1, "hard_loss": 7 / 3}
    means = log.pop_means(alone)
    assert means == pytest.approx(expected | {name: means[name] for name in ("loss", "soft_loss_weight")})


def test_label_smoothing_applies_to_both_sides_of_the_gap():
    log, logits = TrainingLog(), torch.randn(3, 5)
    add_both(log, fused_losses(logits, logits, torch.tensor([0, 1, 2]), label_smoothing=0.2), [True, True, True])
    assert log.pop_means(alone)["train_gap"] == pytest.approx(0, abs=1e-6)


def test_a_teachers_hard_loss_that_is_not_known_leaves_the_gap_out():
    log = TrainingLog()
    add_both(log, losses([1.0, 2.0], soft=[0.5, 0.3])._replace(teacher_hard=None), [True, True])
    means = log.pop_means(alone)
    assert means.keys() == {"loss", "hard_loss", "soft_loss_weight", "soft_loss"}
    assert means["soft_loss"] == pytest.approx(0.4)


def test_ranks_are_summed_before_means_are_taken():
    rank_0, rank_1 = TrainingLog(), TrainingLog()
    rank_0.add(losses(torch.tensor([1.0, 2.0, 3.0])), torch.tensor(9.0), 1.0)
    rank_1.add(losses(torch.tensor([10.0])), torch.tensor(3.0), 1.0)
    other: list[torch.Tensor] = []
    rank_1.pop_means(lambda values: other.append(values) or values)
    assert rank_0.pop_means(lambda values: values + other[0])["hard_loss"] == pytest.approx(4.0)


def test_sums_do_not_keep_the_graph_alive():
    log = TrainingLog()
    hard = torch.rand(3, requires_grad=True) * 2
    log.add(losses(hard), hard.sum(), 1.0)
    assert not any(total.requires_grad for total in log._sums.values())


def test_broken_positions_are_counted_until_training_ends():
    log, whole, broken = TrainingLog(), losses(torch.rand(3)), losses(torch.rand(3), finite=[True, False, True])
    assert log.num_broken_positions(alone) == 0
    add_both(log, whole, [True, True, True])
    assert log.num_broken_positions(alone) == 0
    add_both(log, broken, [True, True, True])
    log.pop_means(alone)
    assert log.num_broken_positions(alone) == 1
    add_both(log, broken, [True, True, True])
    assert log.num_broken_positions(alone) == 2
    assert log.num_broken_positions(lambda values: 2 * values) == 4


def test_means_that_are_not_finite_can_be_left_out():
    for skip, names in [(False, {"loss", "hard_loss", "soft_loss_weight"}), (True, {"loss", "soft_loss_weight"})]:
        log = TrainingLog()
        log.add(losses(torch.tensor([1.0, float("inf")])), torch.tensor(3.0), 2.0)
        assert log.pop_means(alone, skip).keys() == names
