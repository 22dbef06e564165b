"""A tiny growth settles what shapes leave open, and refuses what would not be exact, by the sizes to blame."""

from dataclasses import replace

import pytest
import torch
import transformers
from tiny_teachers import make_config, make_tiny
from transformers import BertConfig, LlamaForCausalLM

from hf_dwt import plan_growth
from hf_dwt.remapping.anatomy import find_anatomy
from hf_dwt.remapping.rehearsal import rehearse, settle


@pytest.mark.parametrize(("family", "field", "answer"), [("gpt2", "n_embd", 0), ("gpt_neox", "hidden_size", 1)])
def test_how_heads_lie_in_memory_is_found_by_trying(family: str, field: str, answer: int) -> None:
    plan = plan_growth(make_tiny(family), **{field: 64})
    assert list(plan.choices.values()) == [("one after the other", "by heads")[answer]]


@pytest.mark.parametrize(("family", "field"), [("bert", "intermediate_size"), ("llama", "hidden_size")])
def test_nothing_is_asked_where_nothing_is_open(family: str, field: str) -> None:
    assert set(plan_growth(make_tiny(family), **{field: 160}).choices) <= {"multiplier of the embeddings"}


def test_gemma_multiplies_its_embeddings_by_the_root_of_the_width_and_llama_does_not() -> None:
    question = "multiplier of the embeddings"
    assert plan_growth(make_tiny("gemma"), hidden_size=64).choices.get(question) == "root of the width"
    assert question not in plan_growth(make_tiny("llama"), hidden_size=64).choices


def test_rotary_pairs_move_to_where_the_larger_head_turns_as_fast() -> None:
    plan = plan_growth(make_tiny("llama"), hidden_size=64, num_attention_heads=4, head_dim=16)
    assert plan.choices["entries of a head"] == "pairs of halves"


class _Louder(LlamaForCausalLM):
    """Its logits depend on one size of its configuration, by name."""

    size = "hidden_size"

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = output.logits * getattr(self.config, self.size)
        return output


class _LouderByLayers(_Louder):
    size = "num_hidden_layers"


class _LouderByHeads(_Louder):
    size = "num_attention_heads"


@pytest.mark.parametrize(
    ("model_class", "blamed"),
    [
        (_Louder, "`hidden_size`"),
        (_LouderByLayers, "`num_hidden_layers`"),
        (_LouderByHeads, "`num_attention_heads` and `num_key_value_heads`"),
    ],
)
def test_only_the_sizes_to_blame_are_named(model_class, blamed: str) -> None:
    teacher = model_class(make_config("llama", head_dim=8))
    with pytest.raises(ValueError, match=f"Growing {blamed} of `{model_class.__name__}` is not exact: .* was off by"):
        plan_growth(teacher, hidden_size=64, num_hidden_layers=4, num_attention_heads=8)


def test_attention_that_depends_on_the_number_of_heads_is_given_as_a_reason() -> None:
    config = transformers.BloomConfig(vocab_size=61, hidden_size=32, n_layer=2, n_head=4)
    with pytest.raises(
        ValueError, match=r"`n_head` of `BloomForCausalLM` is not exact: .*as ALiBi does, is one reason"
    ):
        plan_growth(transformers.BloomForCausalLM(config), hidden_size=48)


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        ("modernbert", r"The norm of its embeddings mixes .*exact \(64\), and `method=\"near\"` grows it to any width"),
        ("opt", r"No field of its configuration holds what its norms add .*exact \(64\), and `method=\"near\"`"),
        ("olmo2", "It normalises over all heads at once"),
    ],
)
def test_a_width_that_is_no_multiple_is_refused_for_what_stands_against_it(family: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        plan_growth(make_tiny(family), hidden_size=80)


def test_a_norm_after_the_sum_refuses_other_factors_and_names_the_next_whole_one() -> None:
    with pytest.raises(ValueError, match=r"32 to 64, not to 48\. `method=\"near\"`"):
        plan_growth(make_tiny("bert"), hidden_size=48)


def test_methods_that_preserve_nothing_are_not_refused_for_it() -> None:
    plan = plan_growth(make_tiny("gpt2"), n_embd=48, method="fpi")
    assert list(plan.choices.values()) == ["one after the other"], "yet the layout is settled"


def test_a_rehearsal_needs_no_weights_of_the_teacher_and_is_small() -> None:
    config = BertConfig(num_hidden_layers=24, hidden_size=2048, num_attention_heads=16, intermediate_size=8192)
    with torch.device("meta"):
        teacher = transformers.BertForMaskedLM(config)
    plan = plan_growth(teacher, hidden_size=4096, num_hidden_layers=48)
    assert len(plan.layers) == 48
    assert plan.configs()[1].hidden_size == 4096


def test_a_wrong_answer_is_seen_by_the_rehearsal() -> None:
    teacher = make_tiny("gpt2")
    plan = plan_growth(teacher, n_embd=64)
    anatomy = find_anatomy(type(teacher), teacher.config)
    (question,) = anatomy.options
    assert rehearse(type(teacher), anatomy, plan)[1].exact
    wrong = replace(anatomy, options={question: ("by heads",)})
    assert not rehearse(type(teacher), wrong, plan)[1].exact


class _NeverRuns(LlamaForCausalLM):
    def forward(self, *args, **kwargs):
        raise RuntimeError("not today")


def test_a_class_that_does_not_run_is_refused_in_its_own_words() -> None:
    plan = plan_growth(make_tiny("llama"), hidden_size=64)
    with pytest.raises(ValueError, match="`_NeverRuns` cannot be taken apart: not today"):
        settle(_NeverRuns, plan)
