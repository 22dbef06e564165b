"""One stack of layers that reads tokens grows, with its adapters; all else is refused before any work."""

import pytest
import torch
import transformers
from peft import IA3Config, LoraConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from tiny_teachers import VOCABULARY, largest_difference, make_tiny, outputs

from hf_dwt import from_weak_teacher

_TWO = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
_PICTURES = {**_TWO, "image_size": 32, "patch_size": 8}
_TWO_STACKS = {"vocab_size": VOCABULARY, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1}
_T5 = {"vocab_size": VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 80, "num_layers": 2, "num_heads": 4}
_GEMMA = {"text_config": {**_TWO, "vocab_size": VOCABULARY}, "vision_config": _PICTURES}


@pytest.mark.parametrize(
    ("class_name", "fields", "reason"),
    [
        ("T5ForConditionalGeneration", _T5, "it is an encoder-decoder"),
        ("T5Model", _T5, "it is an encoder-decoder"),
        ("BartForConditionalGeneration", _TWO_STACKS, "it is an encoder-decoder"),
        ("Gemma3ForConditionalGeneration", _GEMMA, "it is made of several models, .* has a Gemma3TextConfig"),
        ("CLIPModel", _GEMMA, "it is made of several models, .* has a CLIPTextConfig"),
        ("ViTForImageClassification", _PICTURES, "it reads no tokens"),
    ],
)
def test_what_is_not_one_stack_that_reads_tokens_is_refused_before_any_work(class_name, fields, reason, monkeypatch):
    model_class = getattr(transformers, class_name)
    with torch.device("meta"):
        teacher = model_class(model_class.config_class(**fields))
    monkeypatch.setattr("hf_dwt.factory.settle", None)
    for request in ({"hidden_size": 64}, {"method": "random"}, {}):
        with pytest.raises(ValueError, match=rf"{class_name} .* cannot be grown: {reason}.*masked and causal language"):
            from_weak_teacher(teacher, **request)


@pytest.mark.parametrize(("class_name", "fields"), [("T5ForConditionalGeneration", _T5), ("CLIPModel", _GEMMA)])
def test_a_folder_is_refused_by_its_configuration_before_its_weights_are_read(class_name, fields, tmp_path):
    config = getattr(transformers, class_name).config_class(**fields, architectures=[class_name])
    config.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))
    with pytest.raises(ValueError, match=f"{class_name} .* cannot be grown"):
        from_weak_teacher(tmp_path, hidden_size=64)


@pytest.mark.parametrize(
    ("class_name", "fields", "request_"),
    [("BartForCausalLM", _TWO_STACKS, {"d_model": 64}), ("T5EncoderModel", _T5, {"d_model": 64})],
)
def test_one_stack_of_an_encoder_decoder_grows(class_name, fields, request_):
    model_class = getattr(transformers, class_name)
    teacher = model_class(model_class.config_class(**fields))
    _, report = from_weak_teacher(teacher, output_report=True, **request_)
    assert report.exact


# Adapters

peft_asks_by_an_old_name = pytest.mark.filterwarnings(
    "ignore:.*is_gradient_checkpointing.* is deprecated:FutureWarning"
)
_ADAPTERS = [
    LoraConfig(target_modules=["q_proj", "down_proj"], init_lora_weights=False),
    LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"], init_lora_weights=False),
    LoraConfig(target_modules=["q_proj"], use_dora=True, init_lora_weights=False),
    IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"], init_ia3_weights=False),
]


@peft_asks_by_an_old_name
@pytest.mark.parametrize("adapters", _ADAPTERS, ids=["lora", "saved-module", "dora", "ia3"])
def test_adapters_are_merged_into_the_student_and_stay_in_the_teacher(adapters):
    plain = outputs(make_tiny("llama"))
    teacher = get_peft_model(make_tiny("llama"), adapters).eval()
    if adapters.modules_to_save:
        with torch.no_grad():
            teacher.base_model.model.lm_head.modules_to_save["default"].weight.mul_(2)
    before = outputs(teacher)
    assert not torch.allclose(before, plain, atol=1e-3), "the adapters say something"
    student = from_weak_teacher(teacher, hidden_size=64, num_hidden_layers=3)
    assert largest_difference(teacher, student) <= 2e-5
    assert torch.equal(outputs(teacher), before)
    assert not any("lora" in name or "ia3" in name for name in student.state_dict())


@peft_asks_by_an_old_name
@pytest.mark.parametrize("prompts", [PromptTuningConfig, PrefixTuningConfig])
def test_prompts_and_adapters_without_their_wrapper_are_refused(prompts):
    settings = prompts(task_type="CAUSAL_LM", num_virtual_tokens=3)
    prompted = get_peft_model(make_tiny("llama"), settings)
    bare = get_peft_model(make_tiny("llama"), LoraConfig(target_modules=["q_proj"])).base_model.model
    for teacher in (prompted, bare):
        with pytest.raises(ValueError, match="has adapters that are no part of its weights"):
            from_weak_teacher(teacher, hidden_size=64)
