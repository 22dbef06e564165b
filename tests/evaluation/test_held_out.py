import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hf_dwt.evaluation.held_out import (
    held_out_metrics,
    named_metrics,
    refuse_broken_teacher,
    sums_of_batch,
    sums_per_example,
)
from hf_dwt.heads import Head
from hf_dwt.positions import Positions, masked_positions

STUDENT_TOKENS, TEACHER_TOKENS, LENGTH = 7, 5, 6


@pytest.fixture
def data():
    """Labels of eight examples, the third without any position, and both models' logits everywhere."""
    labels = torch.randint(STUDENT_TOKENS, (8, LENGTH))
    labels[torch.rand(8, LENGTH) < 0.5] = -100
    labels[2] = -100
    return labels, torch.randn(8, LENGTH, STUDENT_TOKENS), torch.randn(8, LENGTH, TEACHER_TOKENS)


def scored(labels, student, teacher=None, temperature=1.0):
    positions = masked_positions(labels)

    def at(logits):
        return logits.flatten(end_dim=1)[positions.indices]

    return sums_per_example(
        len(labels), positions, at(student), None if teacher is None else at(teacher), temperature=temperature
    )


def test_means_are_those_of_a_direct_computation_over_all_positions(data):
    labels, student, teacher = data
    metrics = held_out_metrics([scored(*data, temperature=2.0)])

    asked = labels != -100
    labels, student, teacher = labels[asked], student[asked].double(), teacher[asked].double()
    known = labels < TEACHER_TOKENS
    assert 0 < known.sum() < len(labels)
    loss = F.cross_entropy(student, labels).item()
    shared = student[known][:, :TEACHER_TOKENS]
    p, q = (teacher[known] / 2).softmax(-1), (shared / 2).softmax(-1)
    teacher_loss = F.cross_entropy(teacher[known], labels[known]).item()
    expected = {
        "loss": loss,
        "perplexity": math.exp(loss),
        "accuracy": (student.argmax(-1) == labels).double().mean().item(),
        "soft_loss": (p * (p / q).log()).sum(-1).mean().item(),
        "teacher_hard_loss": teacher_loss,
        "gap": F.cross_entropy(student[known], labels[known]).item() - teacher_loss,
        "agreement": (shared.argmax(-1) == teacher[known].argmax(-1)).double().mean().item(),
    }
    assert metrics.keys() == expected.keys()
    assert metrics == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("sizes", [[8], [1] * 8, [3, 5], [2, 1, 5]])
def test_the_split_into_batches_changes_nothing(data, sizes):
    whole = held_out_metrics([scored(*data)])
    batches = zip(*(each.split(sizes) for each in data), strict=True)
    assert held_out_metrics([scored(*batch) for batch in batches]) == pytest.approx(whole, rel=1e-6)


def test_means_of_batch_means_would_differ(data):
    labels, student, _ = data
    means = [held_out_metrics([scored(labels[part], student[part])])["loss"] for part in (slice(3), slice(3, 8))]
    assert sum(means) / 2 != pytest.approx(held_out_metrics([scored(labels, student)])["loss"], rel=1e-3)


def test_each_example_has_a_row_also_without_a_position(data):
    labels = data[0]
    sums = scored(*data)
    assert (sums.shape, sums.dtype) == ((8, 9), torch.float32)
    assert sums[:, 0].tolist() == (labels != -100).sum(dim=1).tolist()
    assert (sums[2] == 0).all()
    assert scored(*data[:2]).shape == (8, 3)


def test_figures_of_a_teacher_that_is_not_asked_are_absent(data):
    assert held_out_metrics([scored(*data[:2])]).keys() == {"loss", "perplexity", "accuracy"}


def test_figures_of_a_teacher_that_knows_no_label_are_absent(data):
    labels, student, teacher = data
    beyond = labels.where(labels == -100, STUDENT_TOKENS - 1)
    assert held_out_metrics([scored(beyond, student, teacher)]).keys() == {"loss", "perplexity", "accuracy"}


def test_a_set_without_positions_has_no_figures(data):
    labels, student, teacher = data
    assert held_out_metrics([scored(torch.full_like(labels, -100), student, teacher)]) == {}


def test_a_student_that_equals_its_teacher_agrees_everywhere():
    labels, logits = torch.randint(5, (3, 4)), torch.randn(3, 4, 5)
    metrics = held_out_metrics([scored(labels, logits, logits)])
    assert (metrics["agreement"], metrics["soft_loss"], metrics["gap"]) == (1.0, 0.0, 0.0)


def test_half_precision_logits_are_summed_in_float32(data):
    labels, student, teacher = data
    half = scored(labels, student.bfloat16(), teacher.bfloat16())
    exact = scored(labels, student.bfloat16().float(), teacher.bfloat16().float())
    assert torch.equal(half, exact)


def test_a_hopeless_loss_has_a_finite_perplexity():
    positions = Positions(torch.tensor([0]), torch.tensor([0]), 1)
    sums = sums_per_example(1, positions, torch.tensor([[-1e5, 1e5]]))
    assert math.isfinite(held_out_metrics([sums])["perplexity"])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_teacher_that_breaks_changes_no_figure_of_the_student_and_is_refused(data, value):
    labels, student, teacher = data
    alone = held_out_metrics([scored(labels, student)], skip_non_finite=True)
    refuse_broken_teacher([scored(*data)], "small")
    num_broken = int((labels[1] != -100).sum())
    assert num_broken
    teacher[1, :, 2] = value
    metrics = held_out_metrics([scored(labels, student, teacher)], skip_non_finite=True)
    assert {name: metrics[name] for name in alone} == alone
    with pytest.raises(
        FloatingPointError,
        match=rf"The teacher \(small\) gave .* not finite, at {num_broken} positions of the held-out",
    ):
        refuse_broken_teacher([scored(labels, student, teacher)], "small")


def test_examples_at_which_the_student_breaks_are_left_out_of_all_figures_and_are_not_the_teachers_fault(data):
    labels, student, teacher = data
    others = [index for index in range(8) if index != 1]
    expected = held_out_metrics([scored(*(each[others] for each in data))])
    student[1] = math.nan
    broken = [scored(labels, student, teacher)]
    assert held_out_metrics(broken, skip_non_finite=True) == pytest.approx(expected)
    assert math.isnan(held_out_metrics(broken)["loss"])
    refuse_broken_teacher(broken, "small")


def test_names_get_the_prefix_once_and_a_users_figures_take_the_place_of_ours():
    users = {"loss": torch.tensor(3.0), "eval_gap": np.float32(1.5), "own": 7}
    named = named_metrics({"loss": 1.0, "gap": 2.0, "accuracy": 0.5}, users, "eval")
    assert named == {"eval_loss": 3.0, "eval_gap": 1.5, "eval_accuracy": 0.5, "eval_own": 7}
    assert named_metrics({"loss": 1.0}, None, "test") == {"test_loss": 1.0}


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_a_batch_scored_in_parts_is_the_batch(data, size):
    labels, student, teacher = data
    positions = masked_positions(labels)
    parts = [slice(start, start + size) for start in range(0, len(positions), size)]
    heads = [
        Head(logits.flatten(end_dim=1)[positions.indices], lambda states: states, parts)
        for logits in (student, teacher)
    ]
    for given in (heads[:1], heads):
        whole = scored(labels, student, teacher if len(given) == 2 else None, temperature=2.0)
        torch.testing.assert_close(sums_of_batch(len(labels), positions, *given, temperature=2.0), whole)
