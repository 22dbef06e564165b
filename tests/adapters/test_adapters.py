"""An adapter on a student: trained, saved, merged, resumed; and adapters of teachers."""

import json
from pathlib import Path

import pytest
import torch
from adapted_runs import adapted_base, copy_of_base, fixed_of, lora, make_base, make_trainer, trained_of
from peft import LoraConfig, PeftModel, PrefixTuningConfig, PromptTuningConfig
from tiny_runs import KINDS, collator, examples, largest_difference, make_student, without_dropout
from transformers import AutoModelForMaskedLM

from hf_dwt import DWTTrainer, adapters, heads
from hf_dwt.adapters import describe, num_adapter_parameters, num_base_parameters, trained_of_base, with_adapter
from hf_dwt.positions import without_labels

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.* is deprecated:FutureWarning")


def logits_of(model: torch.nn.Module, kind: str = "masked") -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(**without_labels(collator(kind)(list(examples())))).logits


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_is_trained_saved_loaded_and_merged(kind: str, tmp_path: Path) -> None:
    base = make_base(kind)
    base.save_pretrained(tmp_path / "base")
    loaded = type(base).from_pretrained(tmp_path / "base")
    trainer = make_trainer(tmp_path / "run", kind, model=loaded, peft_config=lora(kind), teacher=copy_of_base(kind))
    before = trained_of(trainer.model)
    assert before
    assert all("lora_" in name for name in before)
    trainer.train()
    assert largest_difference(before, trained_of(trainer.model)) > 1e-3
    trainer.save_model()
    saved = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "dwt_recipe.json"} <= saved
    assert not {"model.safetensors", "README.md"} & saved
    again = PeftModel.from_pretrained(type(base).from_pretrained(tmp_path / "base"), tmp_path / "run")
    expected = logits_of(trainer.model, kind)
    torch.testing.assert_close(logits_of(again, kind), expected)
    merged = again.merge_and_unload()
    assert type(merged) is type(base)
    torch.testing.assert_close(logits_of(merged, kind), expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(logits_of(base, kind), expected, atol=1e-2)


def test_the_first_weights_of_an_adapter_come_from_the_seed(tmp_path: Path) -> None:
    made = []
    for seed in (1, 1, 2):
        torch.rand(len(made))
        before = torch.random.get_rng_state()
        made.append(with_adapter(make_base(), lora(), seed))
        assert not torch.equal(before, torch.zeros_like(before))
    assert largest_difference(trained_of(made[0]), trained_of(made[1])) == 0
    assert largest_difference(trained_of(made[0]), trained_of(made[2])) > 0.01


@pytest.mark.parametrize("teacher", ["base", "copy"])
def test_a_resumed_adapter_ends_with_the_very_weights_of_an_uninterrupted_one(teacher: str, tmp_path: Path) -> None:
    settings = {"optim": "adamw_torch", "learning_rate": 1e-2, "lr_scheduler_type": "linear", "max_steps": 5}
    settings |= {"save_strategy": "steps", "save_steps": 2, "per_device_train_batch_size": 4}
    runs = []
    for checkpoint in (None, str(tmp_path / "checkpoint-2")):
        taught_by = "base" if teacher == "base" else copy_of_base()
        trainer = make_trainer(tmp_path, model=make_base(), peft_config=lora(), teacher=taught_by, **settings)
        trainer.train(checkpoint)
        runs.append((trained_of(trainer.model), fixed_of(trainer.model)))
    for one, other in zip(*runs, strict=True):
        assert largest_difference(one, other) == 0
    names = {path.name for path in (tmp_path / "checkpoint-4").iterdir()}
    assert "adapter_model.safetensors" in names
    assert not {"model.safetensors", "README.md"} & names


@pytest.mark.parametrize("mixed", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_an_adapted_models_head_in_parts_is_run_in_the_precision_of_the_whole(
    kind: str, mixed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, dtypes, losses = [], [], []
    for most in (heads._MOST_LOGITS_ON_CPU, 3 * make_base(kind).config.vocab_size):
        monkeypatch.setattr(heads, "_MOST_LOGITS_ON_CPU", most)
        model = without_dropout(adapted_base(kind))
        last = model.get_output_embeddings()
        last.register_forward_hook(lambda _, __, logits: dtypes.append((logits.dtype, logits.shape[-2])))
        settings = {"bf16": mixed, "max_steps": 2, "logging_steps": 1}
        trainer = make_trainer(tmp_path, kind, model=model, teacher=copy_of_base(kind), **settings)
        trainer.train()
        losses.append(trainer.state.log_history[0]["loss"])
        runs.append(trained_of(model))
    assert {dtype for dtype, _ in dtypes} == {torch.bfloat16 if mixed else torch.float32}
    assert min(rows for _, rows in dtypes[-3:]) <= 3
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    # The parts' gradients are rounded one by one.
    assert largest_difference(*runs) < (5e-3 if mixed else 1e-6)


def test_an_adapter_on_a_base_can_be_the_teacher(tmp_path: Path) -> None:
    teacher = adapted_base()
    said = logits_of(teacher)
    trainer = make_trainer(tmp_path, model=make_student(), teacher=teacher)
    before = trained_of(trainer.model)
    trainer.train()
    assert largest_difference(before, trained_of(trainer.model)) > 1e-3
    assert not any(each.requires_grad for each in teacher.parameters())
    torch.testing.assert_close(logits_of(teacher), said, atol=0, rtol=0)


def test_an_adapter_teaches_what_its_merged_model_teaches(tmp_path: Path) -> None:
    runs = []
    for teacher in (adapted_base(), adapted_base().merge_and_unload(), copy_of_base()):
        trainer = make_trainer(tmp_path, model=make_student(), teacher=teacher)
        trainer.train()
        runs.append(trained_of(trainer.model))
    adapted, merged, base = runs
    assert largest_difference(adapted, merged) < 1e-5
    assert largest_difference(adapted, base) > 1e-3


# Counting


@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(target_modules=["q_proj"]),
        LoraConfig(target_modules=["q_proj"], use_dora=True),
        LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"]),
        LoraConfig(target_modules=["q_proj"], trainable_token_indices=[1, 2]),
        PrefixTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
        PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
    ],
    ids=["lora", "dora", "saved module", "tokens", "prefix", "prompt"],
)
def test_the_base_is_counted_without_its_adapter(config: LoraConfig) -> None:
    base = make_student("llama")
    size = base.num_parameters()
    model = with_adapter(base, config, seed=1)
    trainable, everything = model.get_nb_trainable_parameters()
    assert num_base_parameters(model) == size
    assert num_adapter_parameters(model) == trainable == everything - size
    assert trained_of_base(model) == []
    assert json.loads(json.dumps(describe(model)))["num_parameters"] == trainable


def test_only_the_adapter_that_is_in_use_is_counted() -> None:
    model = with_adapter(make_student("llama"), LoraConfig(r=2, target_modules=["q_proj"]), seed=1)
    small, base = num_adapter_parameters(model), num_base_parameters(model)
    model.add_adapter("large", LoraConfig(r=8, target_modules=["q_proj"], modules_to_save=["lm_head"]))
    assert num_adapter_parameters(model) == small
    model.set_adapter("large")
    assert num_adapter_parameters(model) == 4 * small + model.get_output_embeddings().weight.numel()
    assert num_base_parameters(model) == base


# The record and the card


@pytest.mark.filterwarnings("ignore:Could not find a config file in me/last-year:UserWarning")
@pytest.mark.parametrize("teacher", ["base", "another"])
def test_record_and_card_of_an_adapter_tell_the_truth(teacher: str, tmp_path: Path) -> None:
    make_base().save_pretrained(tmp_path / "last-year")
    model = AutoModelForMaskedLM.from_pretrained(tmp_path / "last-year")
    # As a base from the Hub has it.
    model.name_or_path = model.config.name_or_path = "me/last-year"
    model.config._commit_hash = "c" * 40
    given = "base" if teacher == "base" else copy_of_base()
    trainer = make_trainer(tmp_path / "run", model=model, peft_config=lora(), teacher=given, max_steps=1)
    trainer.train()
    trainer.save_model()
    record = json.loads((tmp_path / "run" / "dwt_recipe.json").read_text())
    adapter = record["student"]["adapter"]
    assert adapter["type"] == "LORA"
    assert adapter["num_parameters"] == num_adapter_parameters(trainer.model)
    assert (adapter["settings"]["revision"], adapter["base"]) == ("c" * 40, "me/last-year")
    assert record["teacher"]["is_students_base"] is (teacher == "base")
    assert record["training"]["teacher_share"] is None
    trainer.create_model_card()
    card = (tmp_path / "run" / "README.md").read_text()
    for line in ("library_name: peft", "base_model: me/last-year", "base_model_relation: adapter"):
        assert f"\n{line}\n" in card
    assert f"An adapter (LORA, {adapter['num_parameters']:,} parameters) on a masked language model" in card
    assert ("the predictions of its own base" in card) is (teacher == "base")
    assert ("the adapter's own base with the adapter off" in card) is (teacher == "base")
    assert ("but no teacher" in card) is (teacher != "base")
    assert "and is not part of what was saved" in card


def test_the_card_of_an_adapter_without_a_public_base_names_none(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, model=make_base(), peft_config=lora(), max_steps=1)
    trainer.train()
    trainer.create_model_card()
    card = (tmp_path / "README.md").read_text()
    assert "library_name: peft" in card
    assert "base_model" not in card
    assert "Its base was in memory only" in card


def test_a_card_that_lies_there_is_kept_when_an_adapter_is_saved(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, model=make_base(), peft_config=lora())
    (tmp_path / "README.md").write_text("mine")
    trainer.save_model()
    assert (tmp_path / "README.md").read_text() == "mine"


# Refusals and warnings


def test_adapters_do_not_pile_up(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has an adapter already: leave out `peft_config`"):
        make_trainer(tmp_path, model=adapted_base(), peft_config=lora())


def test_a_configuration_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"such as `LoraConfig\(\)`, got dict"):
        make_trainer(tmp_path, model=make_base(), peft_config={"r": 8})


def test_without_peft_it_is_said_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters, "is_peft_available", lambda: False)
    with pytest.raises(ImportError, match=r"`peft_config` needs peft, .* pip install 'hf_dwt\[peft\]'"):
        DWTTrainer(make_base(), peft_config=lora())


def test_a_base_in_memory_is_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with_adapter(make_base(), lora(), seed=1)
    assert "The base of the adapter is in memory only" in caplog.text
    caplog.clear()
    make_base().save_pretrained(tmp_path)
    with_adapter(AutoModelForMaskedLM.from_pretrained(tmp_path), lora(), seed=1)
    assert "in memory only" not in caplog.text
