"""What fits a student to engines, on one process; `tests/engines` has the rest."""

from pathlib import Path

import pytest
from tiny_runs import build, make_student
from transformers import BertForMaskedLM, RobertaConfig, RobertaForMaskedLM
from transformers.conversion_mapping import get_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightRenaming

from hf_dwt.checkpoints import require_same_world_size
from hf_dwt.engines import drop_second_names, forget_legacy_names
from hf_dwt.placement import layers_to_divide

# Names


def test_the_head_of_bert_gives_up_the_bias_that_its_last_layer_holds_too() -> None:
    model = make_student()
    bias = model.cls.predictions.bias
    assert drop_second_names(model) == {"cls.predictions.bias": "cls.predictions.decoder.bias"}
    assert model.cls.predictions.bias is None
    assert model.cls.predictions.decoder.bias is bias
    assert drop_second_names(model) == {}


def test_the_head_of_roberta_does_too() -> None:
    config = RobertaConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
    model = RobertaForMaskedLM(config)
    assert drop_second_names(model) == {"lm_head.bias": "lm_head.decoder.bias"}


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "distilbert"])
def test_other_heads_keep_what_they_have(architecture: str) -> None:
    model = build(architecture)
    before = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    assert drop_second_names(model) == {}
    assert [name for name, _ in model.named_parameters(remove_duplicate=False)] == before


def test_legacy_names_are_forgotten_and_others_kept(tmp_path: Path) -> None:
    make_student().save_pretrained(tmp_path)
    model = BertForMaskedLM.from_pretrained(tmp_path)
    gamma, beta = get_checkpoint_conversion_mapping("legacy")[:2]
    other = WeightRenaming(source_patterns="of.the.user", target_patterns="of.the.model")
    assert (gamma.source_patterns, beta.source_patterns) == (["LayerNorm.gamma"], ["LayerNorm.beta"])
    model._weight_conversions = [gamma, other, beta]
    model.save_pretrained(tmp_path / "without")
    assert b"LayerNorm.gamma" in (tmp_path / "without" / "model.safetensors").read_bytes()
    forget_legacy_names(model)
    assert model._weight_conversions == [other]
    model.save_pretrained(tmp_path / "with")
    assert b"LayerNorm.gamma" not in (tmp_path / "with" / "model.safetensors").read_bytes()


# Layers


@pytest.mark.parametrize(
    ("architecture", "divided"), [("bert", "BertLayer"), ("gpt2", "GPT2Block"), ("llama", "LlamaDecoderLayer")]
)
def test_layers_are_divided_and_what_shares_a_parameter_with_the_rest_is_not(architecture: str, divided: str) -> None:
    assert {type(layer).__name__ for layer in layers_to_divide(build(architecture))} == {divided}


# Numbers of ranks


def deepspeed_checkpoint(folder: Path, num_shares: int, prefix: str = "") -> Path:
    (folder / "global_step4").mkdir(parents=True)
    (folder / "latest").write_text("global_step4")
    for rank in range(num_shares):
        (folder / "global_step4" / f"{prefix}zero_pp_rank_{rank}_mp_rank_00_optim_states.pt").touch()
        (folder / "global_step4" / f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt").touch()
    return folder


@pytest.mark.parametrize("prefix", ["", "bf16_"])
def test_a_checkpoint_of_other_ranks_is_refused_with_the_command_that_makes_it_fit(prefix: str, tmp_path: Path) -> None:
    checkpoint = deepspeed_checkpoint(tmp_path / "checkpoint-4", 2, prefix)
    message = (
        rf"divided among 2 ranks, this run has 1\. Run `python -m deepspeed\.checkpoint\.ds_to_universal "
        rf"--inject_missing_state --input_folder {checkpoint}/global_step4 --output_folder "
        rf"{checkpoint}/global_step4_universal`"
    )
    with pytest.raises(ValueError, match=message):
        require_same_world_size(checkpoint, 1)
    require_same_world_size(checkpoint, 2)
    require_same_world_size(checkpoint, 1, loads_universal=True)


def test_checkpoints_that_are_not_divided_fit_any_number_of_ranks(tmp_path: Path) -> None:
    require_same_world_size(deepspeed_checkpoint(tmp_path / "zero-0", 0), 3)
    (tmp_path / "plain").mkdir()
    require_same_world_size(tmp_path / "plain", 3)
