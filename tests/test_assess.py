"""A teacher is measured on fixed masks, against formulas written out."""

import json
from typing import Any

import pytest
import torch
from tiny_runs import KINDS, WORDS, build, collator, examples, kind_of, labelled_examples, make_student, make_teacher
from tiny_runs import tokenizer as make_tokenizer
from transformers import BertConfig

from hf_dwt import Teacher, assess_teacher, heads
from hf_dwt.assess import calibration_error, quality
from hf_dwt.data import train_tokenizer
from hf_dwt.evaluation.reseeded import ReseededCollator
from hf_dwt.positions import positions_of

TOKENIZER = make_tokenizer()


def teacher(kind: str = "masked") -> Teacher:
    return Teacher(make_teacher(kind), TOKENIZER)


@pytest.mark.parametrize("in_parts", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_figures_are_those_of_the_formulas(kind: str, in_parts: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if in_parts:
        monkeypatch.setattr(heads, "_MOST_LOGITS_ON_CPU", 7 * len(TOKENIZER))
    report = assess_teacher(teacher(kind), examples(), batch_size=5)
    collate = collator(kind)
    batch = (collate.for_evaluation() if kind == "masked" else collate)(list(examples()))
    positions = positions_of(kind_of(kind), batch)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        logs = make_teacher(kind).eval()(**inputs).logits.flatten(0, 1)[positions.indices].log_softmax(-1)
    losses = -logs[torch.arange(len(positions)), positions.labels]
    assert report.num_positions == len(positions)
    assert report.loss == pytest.approx(float(losses.mean()), rel=1e-4)
    assert report.perplexity == pytest.approx(float(losses.mean().exp()), rel=1e-4)
    assert report.accuracy == pytest.approx(float((logs.argmax(-1) == positions.labels).float().mean()))
    assert report.entropy == pytest.approx(float(-(logs.exp() * logs).sum(-1).mean()), rel=1e-4)
    ids = torch.cat([torch.tensor(row) for row in examples()["input_ids"]])
    frequencies = (torch.bincount(ids, minlength=len(TOKENIZER)) + 1).double()
    expected = -(frequencies / frequencies.sum()).log()[positions.labels].mean()
    assert report.unigram_loss == pytest.approx(float(expected), rel=1e-6)
    assert 0 < report.calibration_error < 1


def test_calibration_errors_are_distances_over_bins() -> None:
    confidence, is_right = torch.tensor([0.95, 0.96, 0.5, 1.0]), torch.tensor([1.0, 0.0, 1.0, 1.0])
    # One bin holds 0.95, 0.96 and 1.0, another 0.5.
    assert calibration_error(confidence, is_right) == pytest.approx((abs(2 - 2.91) + 0.5) / 4)
    assert calibration_error(torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0])) == 0


def test_quality_has_no_unit() -> None:
    assert quality(3.0, 3.0, 1.0) == 0
    assert quality(1.0, 3.0, 1.0) == 1
    assert quality(2.0, 3.0, 1.0) == 0.5
    assert quality(2.0, 3.0, None) is None
    assert quality(2.0, 3.0, 3.0) is None


def test_masks_are_the_same_each_time_and_other_seeds_have_others() -> None:
    losses = [assess_teacher(teacher(), examples(), seed=seed).loss for seed in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("kind", KINDS)
def test_verdicts_follow_the_figure_of_the_student_alone(kind: str) -> None:
    loss = assess_teacher(teacher(kind), examples()).loss
    alone = {shift: assess_teacher(teacher(kind), examples(), standalone_loss=loss + shift) for shift in (0.2, -0.16)}
    assert alone[0.2].verdict == "stronger than its student"
    assert alone[0.2].quality > 1 > alone[-0.16].quality
    assert alone[-0.16].verdict == ("like some that helped" if kind == "masked" else "not known")
    assert assess_teacher(build(kind, 12, 1), examples(), processing_class=TOKENIZER).verdict == "useless"


@pytest.mark.parametrize("as_config", [False, True])
def test_sizes_and_costs_are_relative_to_the_student(as_config: bool) -> None:
    student = make_student()
    report = assess_teacher(teacher(), examples(), student=student.config if as_config else student)
    assert report.relative_parameters == pytest.approx(report.num_parameters / student.num_parameters())
    assert 0 < report.relative_cost < 1
    assert report.share_of_step == pytest.approx(report.relative_cost / (3 + report.relative_cost))
    without = assess_teacher(teacher(), examples())
    assert (without.relative_parameters, without.relative_cost, without.share_of_step) == (None, None, None)


def test_a_student_whose_operations_cannot_be_counted_has_no_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(*_: Any) -> int:
        raise ValueError("cannot be counted")

    monkeypatch.setattr("hf_dwt.assess.configured_flops", cannot)
    report = assess_teacher(teacher(), examples(), student=make_student())
    assert report.relative_cost is None
    assert report.relative_parameters is not None


def test_text_that_the_tokenizer_does_not_know_is_told() -> None:
    odd = [{"input_ids": TOKENIZER("cat ξ dog ξ")["input_ids"]}] * 8
    assert assess_teacher(teacher(), odd).unknown_share == pytest.approx(2 / 6)
    assert assess_teacher(teacher(), examples()).unknown_share == 0


def test_labels_of_the_users_are_taken() -> None:
    report = assess_teacher(teacher(), labelled_examples("masked"))
    asked = sum(label != -100 for row in labelled_examples("masked")["labels"] for label in row)
    assert report.num_positions == asked


@pytest.mark.parametrize("kind", KINDS)
def test_examples_of_tensors_are_assessed_as_those_of_lists(kind: Any) -> None:
    data = labelled_examples(kind)
    assert assess_teacher(teacher(kind), data.with_format("torch")) == assess_teacher(teacher(kind), data)
    bare = [{"input_ids": torch.tensor(row)} for row in examples()["input_ids"]]
    assert assess_teacher(teacher(kind), bare) == assess_teacher(teacher(kind), examples())


@pytest.mark.parametrize("kind", KINDS)
def test_columns_that_the_teacher_does_not_read_are_left_out(kind: Any) -> None:
    data = labelled_examples(kind)
    expected = assess_teacher(teacher(kind), data)
    assert assess_teacher(teacher(kind), data.add_column("text", ["a cat"] * len(data))) == expected


def test_a_collator_of_the_users_is_reseeded() -> None:
    import transformers

    own = transformers.DataCollatorForLanguageModeling(TOKENIZER)
    assert assess_teacher(teacher(), examples(), data_collator=own).loss == pytest.approx(
        assess_teacher(teacher(), examples(), data_collator=ReseededCollator(own, 42)).loss
    )


def test_a_report_is_ready_for_json() -> None:
    report = assess_teacher(teacher(), examples(), standalone_loss=1.0)
    assert json.loads(json.dumps(report.to_dict()))["verdict"] == report.verdict


@pytest.mark.parametrize("loss", [float("nan"), -1.0, float("inf")])
def test_a_figure_that_is_no_loss_is_refused(loss: float) -> None:
    with pytest.raises(ValueError, match="`standalone_loss` is a loss in nats"):
        assess_teacher(teacher(), examples(), standalone_loss=loss)


def test_what_cannot_be_assessed_is_refused() -> None:
    with pytest.raises(ValueError, match="must share one vocabulary"):
        assess_teacher(teacher(), examples(), processing_class=train_tokenizer([" ".join(WORDS[:4])], vocab_size=60))
    ignored = [{"input_ids": [5, 6], "attention_mask": [1, 1], "labels": [-100, -100]}] * 4
    with pytest.raises(ValueError, match="asks for no prediction"):
        assess_teacher(teacher(), ignored)
    with pytest.raises(TypeError, match="must be a masked or causal language model"):
        assess_teacher(torch.nn.Linear(2, 2), examples())
    assert BertConfig().vocab_size > len(TOKENIZER)
