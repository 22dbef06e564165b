"""`teacher="base"`: the student's own base, heard with the adapter off, as if it were a copy."""

from pathlib import Path
from typing import Any

import pytest
import torch
from adapted_runs import adapted_base, copy_of_base, fixed_of, lora, make_base, make_trainer, trained_of
from tiny_runs import KINDS, examples, largest_difference, without_dropout
from trainer_runs import training_logs

from hf_dwt import base_teaching, heads
from hf_dwt.adapters import adapter_off, num_base_parameters

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.* is deprecated:FutureWarning")

EQUAL = 1e-6


@pytest.mark.parametrize("parts", ["whole", "in parts"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_base_teaches_as_a_copy_of_it_does_under_dropout(
    kind: str, parts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if parts == "in parts":
        monkeypatch.setattr(heads, "_MOST_LOGITS_ON_CPU", 3 * make_base(kind).config.vocab_size)
    runs = []
    for teacher in ("base", copy_of_base(kind), None):
        trainer = make_trainer(tmp_path, kind, teacher=teacher, logging_steps=1)
        assert any(isinstance(each, torch.nn.Dropout) and each.p > 0 for each in trainer.model.modules())
        before = fixed_of(trainer.model)
        trainer.train()
        assert largest_difference(before, fixed_of(trainer.model)) == 0
        runs.append((trained_of(trainer.model), training_logs(trainer)))
    (ours, our_logs), (copied, copied_logs), (alone, _) = runs
    assert largest_difference(ours, copied) < EQUAL
    assert largest_difference(ours, alone) > 1e-3
    for one, other in zip(our_logs, copied_logs, strict=True):
        for name in ("loss", "hard_loss", "soft_loss", "teacher_hard_loss"):
            assert one[name] == pytest.approx(other[name], abs=1e-5)
        assert one["soft_loss"] > 1e-3


@pytest.mark.parametrize("wrong", ["adapter on", "evaluation mode"])
def test_what_the_base_is_asked_under_matters(wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control of the test above."""
    right = make_trainer(tmp_path)
    right.train()

    class Nothing:
        def __init__(self, model: Any) -> None:
            self.context = model.disable_adapter() if wrong == "evaluation mode" else None

        def __enter__(self) -> None:
            if self.context is not None:
                self.context.__enter__()

        def __exit__(self, *error: Any) -> None:
            if self.context is not None:
                self.context.__exit__(*error)

    monkeypatch.setattr(base_teaching, "adapter_off", Nothing)
    other = make_trainer(tmp_path)
    other.train()
    assert largest_difference(trained_of(right.model), trained_of(other.model)) > 1e-3


def test_modes_and_flags_are_as_they_were_after_the_base_was_asked(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    model = trainer.model.train()
    model.get_base_model().bert.encoder.layer[0].eval()
    frozen = next(each for name, each in model.named_parameters() if "lora_A" in name)
    frozen.requires_grad_(False)
    state = {name: module.training for name, module in model.named_modules()}
    flags = {name: each.requires_grad for name, each in model.named_parameters()}
    trainer.compute_loss(model, trainer.data_collator(list(examples())))
    assert state == {name: module.training for name, module in model.named_modules()}
    assert flags == {name: each.requires_grad for name, each in model.named_parameters()}
    with adapter_off(model):
        assert not any(module.training for module in model.modules())
    assert state == {name: module.training for name, module in model.named_modules()}
    assert flags == {name: each.requires_grad for name, each in model.named_parameters()}


def test_there_is_one_copy_of_the_weights_and_its_size_is_the_bases(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    assert trainer.teacher.model is trainer.model
    facts = trainer.teacher_facts()
    assert facts.is_students_base
    assert facts.num_parameters == make_base().num_parameters() == num_base_parameters(trainer.model)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_checkpointing_changes_no_weight_of_an_adapter(kind: str, tmp_path: Path) -> None:
    runs = []
    for checkpointing in (True, False):
        # What is computed again is not cut short, so dropout would be drawn in another shape.
        model = without_dropout(adapted_base(kind))
        trainer = make_trainer(tmp_path, kind, model=model, activation_checkpointing=checkpointing)
        trainer.train()
        assert trainer.model.get_base_model().is_activation_checkpointing is checkpointing
        runs.append(trained_of(trainer.model))
    assert largest_difference(*runs) < EQUAL


def test_evaluation_compares_the_adapter_with_its_base(tmp_path: Path) -> None:
    figures = []
    for teacher in ("base", copy_of_base()):
        metrics = make_trainer(tmp_path, teacher=teacher, eval_dataset=examples()).evaluate()
        figures.append({name: metrics[name] for name in ("eval_loss", "eval_teacher_hard_loss", "eval_gap")})
    assert figures[0] == pytest.approx(figures[1], abs=1e-6)
    assert abs(figures[0]["eval_gap"]) > 1e-3


def test_that_a_new_adapter_says_what_its_base_says_is_no_news(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for teacher, is_told in (("base", False), (copy_of_base(), True)):
        make_trainer(tmp_path, teacher=teacher, model=make_base(), peft_config=lora(), max_steps=1).train()
        assert ("starts as its teacher's equal" in caplog.text) is is_told


def test_the_base_that_is_let_go_stays_in_the_student(tmp_path: Path) -> None:
    kwargs = {"weighting": "step", "weighting_kwargs": {"at": 0.5}, "final_soft_loss_weight": 0.0}
    trainer = make_trainer(tmp_path, **kwargs)
    trainer.train()
    assert trainer.teacher is None
    assert trainer.state.global_step == 4


def test_each_model_of_a_search_hears_its_own_base(tmp_path: Path) -> None:
    made = []

    def model_init() -> Any:
        made.append(make_base())
        return made[-1]

    trainer = make_trainer(tmp_path, model_init=model_init, peft_config=lora())
    trainer.train()
    assert len(made) == 2
    assert trainer.model.get_base_model() is made[1]
    assert trainer.teacher.model is trainer.model


# Refusals


def test_a_student_without_an_adapter_has_no_base_to_hear(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`model` has no adapter of peft: .* is given as '\./base'"):
        make_trainer(tmp_path, model=make_base())


def test_a_folder_of_that_name_is_taken_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    copy_of_base().save_pretrained("base")
    for given in ("./base", Path("base")):
        assert make_trainer(tmp_path, teacher=given).teacher.origin.name in ("./base", "base")
    with pytest.raises(ValueError, match="has no adapter of peft"):
        make_trainer(tmp_path, teacher="base", model=make_base())


def test_a_base_that_is_trained_too_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\d+ of its weights are trained beside the adapter: .*bias"):
        make_trainer(tmp_path, model=adapted_base(bias="lora_only"))


def test_the_base_has_no_precision_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="leave `teacher_dtype` out, got 'bfloat16'"):
        make_trainer(tmp_path, teacher_dtype="bfloat16")


def test_a_copy_that_shares_parameters_is_still_refused(tmp_path: Path) -> None:
    model = adapted_base()
    with pytest.raises(ValueError, match="`teacher` and `model` share parameters"):
        make_trainer(tmp_path, model=model, teacher=model)
