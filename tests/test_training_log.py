import pytest
import torch
from torch.nn import functional as F

from hf_dwt.losses import hard_loss
from hf_dwt.training_log import TrainingLog


def alone(values):
    """Sum over one rank."""
    return values


@pytest.fixture
def teacher_logits():
    return torch.randn(3, 5)


def add_both(log, hard, soft, teacher_logits, labels):
    """Count a micro-batch as the trainer does."""
    log.add(hard, hard.sum(), 1.0)
    log.add_teacher(hard, soft, teacher_logits, labels)


def test_means_are_over_positions_not_over_batches():
    log = TrainingLog()
    log.add(torch.tensor([1.0, 2.0, 6.0]), torch.tensor(10.0), soft_loss_weight=4.0)
    log.add(torch.tensor([3.0]), torch.tensor(2.0), soft_loss_weight=2.0)
    assert log.pop_means(alone) == pytest.approx({"loss": 3.0, "hard_loss": 3.0, "soft_loss_weight": 3.5})


def test_what_was_not_computed_is_absent(teacher_logits):
    log = TrainingLog()
    assert log.pop_means(alone) == {}
    log.add(torch.tensor([1.0]), torch.tensor(1.0), 0.0)
    assert log.pop_means(alone).keys() == {"loss", "hard_loss", "soft_loss_weight"}
    add_both(log, torch.rand(3), torch.zeros(3), teacher_logits, torch.tensor([7, 8, 9]))
    assert log.pop_means(alone).keys() == {"loss", "hard_loss", "soft_loss_weight"}, "no label is the teacher's"
    add_both(log, torch.rand(3), torch.rand(3), teacher_logits, torch.tensor([0, 1, 2]))
    assert log.pop_means(alone).keys() >= {"soft_loss", "teacher_hard_loss", "train_gap"}


def test_no_position_gives_no_means():
    log = TrainingLog()
    log.add(torch.empty(0), torch.tensor(0.0), 1.0)
    assert log.pop_means(alone) == {}


def test_every_log_starts_anew():
    log = TrainingLog()
    log.add(torch.tensor([1.0]), torch.tensor(1.0), 1.0)
    log.pop_means(alone)
    assert log.pop_means(alone) == {}
    log.add(torch.tensor([5.0]), torch.tensor(5.0), 1.0)
    assert log.pop_means(alone)["hard_loss"] == 5.0


def test_the_teachers_figures_are_over_the_positions_whose_label_it_knows(teacher_logits):
    log = TrainingLog()
    hard, soft, labels = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0.5, 0.0, 0.3]), torch.tensor([4, 5, 0])
    add_both(log, hard, soft, teacher_logits, labels)
    known = F.cross_entropy(teacher_logits[[0, 2]], labels[[0, 2]]).item()
    expected = {"soft_loss": 0.4, "teacher_hard_loss": known, "train_gap": 2.5 - known}
    means = log.pop_means(alone)
    assert means == pytest.approx(expected | {name: means[name] for name in ("loss", "hard_loss", "soft_loss_weight")})


def test_label_smoothing_applies_to_both_sides_of_the_gap(teacher_logits):
    log, labels = TrainingLog(label_smoothing=0.2), torch.tensor([0, 1, 2])
    same = hard_loss(teacher_logits, labels, label_smoothing=0.2)
    add_both(log, same, torch.zeros(3), teacher_logits, labels)
    means = log.pop_means(alone)
    assert means["train_gap"] == pytest.approx(0, abs=1e-6)
    assert means["teacher_hard_loss"] == pytest.approx(same.mean().item())


def test_ranks_are_summed_before_means_are_taken():
    rank_0, rank_1 = TrainingLog(), TrainingLog()
    rank_0.add(torch.tensor([1.0, 2.0, 3.0]), torch.tensor(9.0), 1.0)
    rank_1.add(torch.tensor([10.0]), torch.tensor(3.0), 1.0)
    other: list[torch.Tensor] = []
    rank_1.pop_means(lambda values: other.append(values) or values)
    assert rank_0.pop_means(lambda values: values + other[0])["hard_loss"] == pytest.approx(4.0)


def test_sums_do_not_keep_the_graph_alive():
    log = TrainingLog()
    hard = torch.rand(3, requires_grad=True) * 2
    log.add(hard, hard.sum(), 1.0)
    assert not any(total.requires_grad for total in log._sums.values())


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
def test_broken_positions_are_counted_until_training_ends(broken, teacher_logits):
    log, labels = TrainingLog(), torch.tensor([0, 1, 2])
    assert log.num_broken_positions(alone) == 0
    add_both(log, torch.rand(3), torch.rand(3), teacher_logits, labels)
    assert log.num_broken_positions(alone) == 0
    teacher_logits[1, 3] = broken
    add_both(log, torch.rand(3), torch.rand(3), teacher_logits, labels)
    log.pop_means(alone)
    assert log.num_broken_positions(alone) == 1
    add_both(log, torch.rand(3), torch.rand(3), teacher_logits, labels)
    assert log.num_broken_positions(alone) == 2
    assert log.num_broken_positions(lambda values: 2 * values) == 4


def test_large_half_precision_logits_are_not_broken():
    log = TrainingLog()
    log.add_teacher(torch.rand(1), torch.rand(1), torch.full((1, 500), 6e4, dtype=torch.float16), torch.tensor([0]))
    assert log.num_broken_positions(alone) == 0


def test_means_that_are_not_finite_can_be_left_out():
    for skip, names in [(False, {"loss", "hard_loss", "soft_loss_weight"}), (True, {"loss", "soft_loss_weight"})]:
        log = TrainingLog()
        log.add(torch.tensor([1.0, float("inf")]), torch.tensor(3.0), 2.0)
        assert log.pop_means(alone, skip).keys() == names
