import copy
import os
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    BitsAndBytesConfig,
    DistilBertConfig,
    DistilBertForMaskedLM,
    MixtralConfig,
    MixtralForCausalLM,
    RobertaConfig,
    RobertaForMaskedLM,
    T5Config,
    T5ForConditionalGeneration,
)

from hf_dwt import Teacher, from_weak_teacher, load_teacher
from hf_dwt.model_files import check_folder
from hf_dwt.positions import full_logits, masked_positions, positions_of, select
from hf_dwt.teacher import Origin, as_teacher


@pytest.fixture
def folder(tmp_path, make_bert, tokenizer) -> Path:
    """A teacher with its tokenizer, as `save_pretrained` leaves them."""
    make_bert().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("has_config", [False, True])
def test_the_folder_of_an_adapter_is_refused_with_what_to_do(has_config, tmp_path, make_bert):
    (tmp_path / "adapter").mkdir()
    LoraConfig(target_modules=["query"]).save_pretrained(tmp_path / "adapter")
    if has_config:
        make_bert().config.save_pretrained(tmp_path / "adapter")
    with pytest.raises(
        FileNotFoundError, match=r"an adapter of peft, no whole model: put it on its base with `PeftModel"
    ):
        load_teacher(tmp_path / "adapter")


def test_a_revision_of_a_folder_is_refused_not_ignored(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`revision` \('v1'\) is for Hub ids, but .* is a folder"):
        load_teacher(tmp_path, revision="v1")
    with pytest.raises(ValueError, match="is a folder"):
        from_weak_teacher(tmp_path, num_hidden_layers=4, revision="v1")


def test_an_adapter_beside_a_whole_model_is_no_reason_to_refuse_the_folder(folder):
    LoraConfig(target_modules=["query"]).save_pretrained(folder)
    check_folder(str(folder))


@pytest.fixture
def batch(tokenizer):
    inputs = dict(tokenizer(["the cat sat on the mat", "a dog ran"], padding=True, return_tensors="pt"))
    return inputs, masked_positions(inputs["input_ids"].where(inputs["input_ids"] > 8, -100))


# What becomes of a model


def test_a_teacher_is_frozen_and_evaluated(make_bert):
    model = make_bert().train()
    assert model.training
    assert all(each.requires_grad for each in model.parameters())
    teacher = Teacher(model)
    assert not any(module.training for module in teacher.model.modules())
    assert not any(each.requires_grad for each in teacher.model.parameters())
    assert teacher.model is model


def test_a_teacher_knows_its_kind_and_width(make_bert, make_gpt2, tokenizer):
    assert (Teacher(make_bert()).kind, Teacher(make_bert()).vocab_size) == ("masked", len(tokenizer))
    assert (Teacher(make_gpt2()).kind, Teacher(make_gpt2(vocab_size=120)).vocab_size) == ("causal", 120)


@pytest.mark.parametrize("model_class", [BertModel, BertForSequenceClassification])
def test_models_without_a_language_modelling_head_are_refused(model_class):
    model = model_class(BertConfig(vocab_size=9, hidden_size=12, num_hidden_layers=1))
    with pytest.raises(TypeError, match=f"must be a masked or causal language model, got {model_class.__name__}"):
        Teacher(model)


def test_encoder_decoders_are_refused():
    model = T5ForConditionalGeneration(T5Config(vocab_size=9, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2))
    with pytest.raises(TypeError, match=r"got T5ForConditionalGeneration .*Encoder-decoders and bare encoders cannot"):
        Teacher(model)


def test_a_tokenizer_with_more_tokens_than_the_model_predicts_is_refused(make_bert, tokenizer):
    size = len(tokenizer)
    with pytest.raises(ValueError, match=rf"predicts {size - 1} tokens, but its tokenizer has {size}: they do not"):
        Teacher(make_bert(vocab_size=size - 1), tokenizer)
    assert Teacher(make_bert(vocab_size=size + 8), tokenizer).vocab_size == size + 8


def test_a_model_spread_over_devices_is_refused(make_bert):
    model = make_bert()
    model.hf_device_map = {"bert": 0, "cls": 1}
    with pytest.raises(ValueError, match="is spread over 2 devices by a `device_map`"):
        Teacher(model)
    model.hf_device_map = {"": "cpu"}
    assert Teacher(model)


def test_a_quantised_model_is_refused(make_bert):
    model = make_bert()
    model.config.quantization_config = BitsAndBytesConfig(load_in_8bit=True)
    with pytest.raises(ValueError, match=r"is quantised\. Load it unquantised; `teacher_dtype='bfloat16'` halves it"):
        Teacher(model)


# Loading


def test_a_folder_gives_model_tokenizer_and_origin(folder, make_bert, tokenizer, batch):
    teacher = load_teacher(folder)
    assert teacher.origin == Origin(str(folder))
    assert str(teacher.origin) == str(folder)
    assert teacher.processing_class.get_vocab() == tokenizer.get_vocab()
    assert isinstance(teacher.model, BertForMaskedLM)
    assert not teacher.model.training
    saved = BertForMaskedLM.from_pretrained(folder).eval()
    assert torch.equal(full_logits(teacher.model, batch[0]), full_logits(saved, batch[0]))


def test_a_folder_at_home_may_be_named_by_a_tilde(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert load_teacher(f"~/{folder.name}").origin == Origin(f"~/{folder.name}")


def test_a_causal_model_is_loaded_as_one(tmp_path, make_gpt2):
    make_gpt2().save_pretrained(tmp_path)
    assert load_teacher(tmp_path).kind == "causal"


@pytest.mark.parametrize("dtype", ["bfloat16", torch.bfloat16])
def test_weights_take_the_dtype_that_is_asked_for(folder, dtype):
    assert load_teacher(folder, dtype=dtype).model.dtype == torch.bfloat16


def test_weights_keep_the_dtype_that_they_were_saved_in(tmp_path, make_bert):
    make_bert().to(torch.float16).save_pretrained(tmp_path)
    assert load_teacher(tmp_path).model.dtype == torch.float16


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/folder", "~/nowhere", "a/b/c"])
def test_a_missing_folder_is_not_looked_for_on_the_hub(name):
    with pytest.raises(FileNotFoundError, match=f"`teacher` is {name!r}, which is no folder with a config.json"):
        load_teacher(name)


@pytest.mark.parametrize("name", ["nowhere", "runs/missing"])
def test_a_path_is_a_folder_whatever_it_is_called(name, monkeypatch, folder):
    for ask in (load_teacher, lambda path: from_weak_teacher(path, num_hidden_layers=4)):
        with pytest.raises(FileNotFoundError, match=f"`teacher` is './{name}', which is no folder with a config.json"):
            ask(Path(name))
    monkeypatch.chdir(folder.parent)
    assert load_teacher(Path(folder.name)).origin == Origin(folder.name)


def test_a_folder_without_a_configuration_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"which is no folder with a config\.json"):
        load_teacher(tmp_path)


def test_a_folder_without_weights_is_refused(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(OSError, match=r"weights of the teacher .* could not be loaded"):
        load_teacher(folder)


def test_a_bare_encoder_is_refused_by_its_configuration(tmp_path, make_bert):
    make_bert().bert.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"says that it is \['BertModel'\], which is no masked or causal"):
        load_teacher(tmp_path)


def test_an_encoder_decoder_is_refused_by_its_configuration(tmp_path):
    T5Config(architectures=["T5ForConditionalGeneration"]).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"says that it is \['T5ForConditionalGeneration'\], which is no masked"):
        load_teacher(tmp_path)


def test_a_configuration_without_architectures_is_refused(tmp_path):
    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="says that it is of no architecture"):
        load_teacher(tmp_path)


def test_a_bare_encoder_that_claims_a_head_is_refused(tmp_path, make_bert):
    encoder = make_bert().bert
    encoder.save_pretrained(tmp_path)
    encoder.config.architectures = ["BertForMaskedLM"]
    encoder.config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"was saved without cls\..*: \d+ weights would be random\. A teacher needs"):
        load_teacher(tmp_path)


def test_weights_of_another_shape_are_refused(folder):
    config = BertConfig.from_pretrained(folder)
    config.intermediate_size *= 2
    config.save_pretrained(folder)
    with pytest.raises(ValueError, match=r"was saved without bert\.encoder\.layer\.0\.intermediate.* would be random"):
        load_teacher(folder)


def test_pickled_weights_are_read_only_if_they_are_allowed(folder):
    model = BertForMaskedLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(OSError, match="Only safetensors are read unless you pass `allow_pickle=True`"):
        load_teacher(folder)
    teacher = load_teacher(folder, allow_pickle=True)
    assert torch.equal(teacher.model.cls.predictions.bias, model.cls.predictions.bias)


def test_a_teacher_without_a_tokenizer_is_warned_about(tmp_path, make_bert, caplog):
    make_bert().save_pretrained(tmp_path)
    assert load_teacher(tmp_path).processing_class is None
    assert f"There is no tokenizer beside the teacher {str(tmp_path)!r}" in caplog.text


def test_a_teacher_with_its_tokenizer_is_not_warned_about(folder, caplog):
    assert load_teacher(folder).processing_class is not None
    assert "There is no tokenizer" not in caplog.text


@pytest.mark.parametrize("before", [None, "0"])
def test_the_conversion_service_is_switched_off_while_loading_only(folder, monkeypatch, before):
    monkeypatch.delenv("DISABLE_SAFETENSORS_CONVERSION", raising=False)
    if before is not None:
        monkeypatch.setenv("DISABLE_SAFETENSORS_CONVERSION", before)
    during = []
    stock = BertForMaskedLM.from_pretrained.__func__

    def from_pretrained(cls, *args, **kwargs):
        during.append(os.environ["DISABLE_SAFETENSORS_CONVERSION"])
        return stock(cls, *args, **kwargs)

    monkeypatch.setattr(BertForMaskedLM, "from_pretrained", classmethod(from_pretrained))
    load_teacher(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(OSError, match="could not be loaded"):
        load_teacher(folder)
    assert during == ["1", "1"]
    assert os.environ.get("DISABLE_SAFETENSORS_CONVERSION") == before


# Whatever a user passes


def test_a_folder_a_model_and_a_teacher_become_a_teacher(folder, make_bert):
    assert as_teacher(str(folder)).origin.name == as_teacher(folder).origin.name == str(folder)
    model = make_bert()
    assert as_teacher(model).model is model
    assert str(as_teacher(model).origin) == "a model passed in memory"
    teacher = Teacher(model)
    assert as_teacher(teacher) is teacher


@pytest.mark.parametrize("wrong", [None, 5, ["bert"], torch.nn.Linear(2, 2)], ids=lambda wrong: type(wrong).__name__)
def test_other_things_are_refused_by_their_type(wrong):
    with pytest.raises(TypeError, match=f"`teacher` must be a masked or causal .* got {type(wrong).__name__}"):
        as_teacher(wrong)


def test_any_source_is_cast_to_the_dtype_that_is_asked_for(folder, make_bert):
    for source in (folder, make_bert(), Teacher(make_bert())):
        assert as_teacher(source, dtype="bfloat16").model.dtype == torch.bfloat16
        assert as_teacher(source).model.dtype in (torch.float32, torch.bfloat16)


def test_a_commit_is_part_of_an_origin():
    assert str(Origin("me/model", "main", "abc123")) == "me/model@abc123"


# What it says


def test_its_logits_are_those_of_its_model_at_the_positions_without_gradient(make_bert, tokenizer, batch):
    teacher = Teacher(make_bert(vocab_size=len(tokenizer) + 4), tokenizer)
    inputs, positions = batch
    logits = teacher.logits_at(inputs, positions, len(tokenizer))
    expected = select(full_logits(teacher.model, inputs), positions)[:, : len(tokenizer)]
    assert logits.shape == (len(positions), len(tokenizer))
    torch.testing.assert_close(logits, expected)
    assert not logits.requires_grad


def test_inputs_that_it_does_not_know_are_left_out(tokenizer, batch):
    small = DistilBertConfig(vocab_size=len(tokenizer), dim=16, n_layers=1, n_heads=2, hidden_dim=16)
    teacher = Teacher(DistilBertForMaskedLM(small))
    inputs, positions = batch
    given: list[set[str]] = []
    teacher.model.register_forward_pre_hook(lambda _, args, kwargs: given.append(set(kwargs)), with_kwargs=True)
    teacher.logits_at(inputs | {"token_type_ids": torch.ones(2, 8)}, positions, len(tokenizer))
    assert given == [{"input_ids", "attention_mask"}]


def test_inputs_that_it_knows_are_passed_on(make_bert, tokenizer, batch):
    teacher = Teacher(make_bert())
    inputs, positions = batch
    assert (inputs["attention_mask"] == 0).any()
    ids_alone = teacher.logits_at({"input_ids": inputs["input_ids"]}, positions, len(tokenizer))
    assert not torch.allclose(teacher.logits_at(inputs, positions, len(tokenizer)), ids_alone)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.* is deprecated:FutureWarning")
def test_a_teacher_with_adapters_sees_the_attention_mask_too(make_bert, tokenizer, batch):
    adapted = Teacher(get_peft_model(make_bert(), LoraConfig(target_modules=["query"], init_lora_weights=False)))
    inputs, positions = batch
    expected = select(full_logits(adapted.model, inputs), positions)
    torch.testing.assert_close(adapted.logits_at(inputs, positions, len(tokenizer)), expected)


def test_a_causal_teacher_keeps_no_cache(make_gpt2, tokenizer, batch):
    teacher = Teacher(make_gpt2())
    asked = []
    teacher.model.transformer.register_forward_pre_hook(
        lambda _, args, kwargs: asked.append(kwargs["use_cache"]), with_kwargs=True
    )
    positions = positions_of("causal", {"labels": batch[0]["input_ids"]})
    teacher.logits_at(batch[0], positions, len(tokenizer))
    assert asked == [False]


def test_a_teacher_of_experts_is_not_asked_about_its_router(tokenizer, batch):
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    experts = {"num_key_value_heads": 1, "num_local_experts": 2, "num_experts_per_tok": 1}
    config = MixtralConfig(vocab_size=len(tokenizer), **size, **experts, output_router_logits=True)
    teacher = Teacher(MixtralForCausalLM(config))
    inputs = batch[0]
    positions = positions_of("causal", {"labels": inputs["input_ids"]})
    expected = select(teacher.model(**inputs).logits, positions)
    for parts in ([slice(None)], [slice(0, 3), slice(3, len(positions))]):
        head = teacher.head_at(inputs, positions, len(tokenizer), parts)
        torch.testing.assert_close(torch.cat([head.logits(rows) for rows in head.parts]), expected)


def test_sequences_longer_than_it_reads_are_refused(make_bert, tokenizer):
    teacher = Teacher(make_bert(max_position_embeddings=8))
    ids = torch.full((1, 9), 7)
    with pytest.raises(ValueError, match=r"reads at most 8 tokens \(`max_position_embeddings`\), the batch has 9"):
        teacher.logits_at({"input_ids": ids}, masked_positions(ids), len(tokenizer))
    assert teacher.logits_at({"input_ids": ids[:, :8]}, masked_positions(ids[:, :8]), len(tokenizer)).shape[0] == 8


def test_rows_of_the_position_table_that_padding_takes_are_not_counted(tokenizer):
    small = {"vocab_size": len(tokenizer), "hidden_size": 12, "num_hidden_layers": 1, "pad_token_id": 1}
    teacher = Teacher(RobertaForMaskedLM(RobertaConfig(max_position_embeddings=10, **small)))
    ids = torch.full((1, 9), 7)
    with pytest.raises(ValueError, match="reads at most 8 tokens"):
        teacher.logits_at({"input_ids": ids}, masked_positions(ids), len(tokenizer))
    assert teacher.logits_at({"input_ids": ids[:, :8]}, masked_positions(ids[:, :8]), len(tokenizer)).shape[0] == 8


def test_tokens_that_it_lacks_are_refused(make_bert, tokenizer):
    teacher = Teacher(make_bert(vocab_size=len(tokenizer) + 4), tokenizer)
    ids = torch.tensor([[7, len(tokenizer), 8]])
    text = rf"holds token {len(tokenizer)}, .* lacks: it knows {len(tokenizer)}\. In training, `map_added_tokens"
    with pytest.raises(ValueError, match=text):
        teacher.logits_at({"input_ids": ids}, masked_positions(ids), len(tokenizer))


def test_tokens_that_it_lacks_are_read_as_unknown_if_that_is_asked_for(make_bert, tokenizer):
    teacher = Teacher(make_bert(), copy.deepcopy(tokenizer))
    ids = torch.tensor([[7, len(tokenizer), 8]])
    unknown = ids.where(ids < len(tokenizer), tokenizer.unk_token_id)
    positions = masked_positions(ids)
    mapped = teacher.logits_at({"input_ids": ids}, positions, len(tokenizer), map_added_tokens_to_unknown=True)
    assert torch.equal(mapped, teacher.logits_at({"input_ids": unknown}, positions, len(tokenizer)))
    assert ids[0, 1] == len(tokenizer), "the student's batch is left as it is"
