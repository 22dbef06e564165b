"""A class is taken apart by shapes and by what its modules are given."""

from functools import cache

import pytest
from tiny_teachers import VOCABULARY, make_config, make_tiny
from transformers import BertForMaskedLM, MixtralConfig, MixtralForCausalLM

from hf_dwt.remapping.anatomy import Anatomy, find_anatomy
from hf_dwt.remapping.axes import Dimension


@cache
def anatomy_of(family: str) -> Anatomy:
    model = make_tiny(family)
    return find_anatomy(type(model), model.config)


@pytest.mark.parametrize(
    ("family", "kind", "axes", "roles"),
    [
        ("bert", "bert.encoder.layer.*.attention.self.query.weight", ("query", "hidden"), ("write", "read")),
        ("bert", "bert.encoder.layer.*.attention.output.dense.weight", ("hidden", "query"), ("write", "read")),
        ("bert", "cls.predictions.transform.dense.weight", ("hidden", "hidden"), ("write", "read")),
        ("bert", "bert.embeddings.LayerNorm.weight", ("hidden",), ("norm",)),
        ("bert", "bert.embeddings.LayerNorm.bias", ("hidden",), ("write",)),
        ("gpt2", "transformer.h.*.mlp.c_fc.weight", ("hidden", "intermediate"), ("read", "write")),
        ("gpt2", "transformer.h.*.attn.c_proj.weight", ("query", "hidden"), ("read", "write")),
        ("gpt2", "transformer.wpe.weight", ("positions", "hidden"), ("rows", "write")),
        ("llama", "model.layers.*.self_attn.k_proj.weight", ("key_value", "hidden"), ("write", "read")),
        ("llama", "lm_head.weight", ("vocabulary", "hidden"), ("write", "read")),
        ("gemma3", "model.layers.*.self_attn.q_norm.weight", ("head_dim",), ("norm",)),
    ],
)
def test_each_side_of_a_parameter_is_known(
    family: str, kind: str, axes: tuple[str, ...], roles: tuple[str, ...]
) -> None:
    part = anatomy_of(family).part(kind, {})
    assert part.dimensions == tuple(Dimension((axis,)) for axis in axes)
    assert part.roles == roles


@pytest.mark.parametrize(
    ("family", "layers"),
    [("bert", ("bert.encoder.layer",)), ("gpt2", ("transformer.h",)), ("llama", ("model.layers",)), ("albert", ())],
)
def test_the_list_that_gets_longer_is_the_layers_and_shared_layers_have_none(
    family: str, layers: tuple[str, ...]
) -> None:
    assert anatomy_of(family).layers == layers


@pytest.mark.parametrize(("family", "tied"), [("llama", False), ("llama-tied", True), ("xlm-roberta", True)])
def test_a_tied_head_is_the_table_of_the_embeddings_under_either_name(family: str, tied: bool) -> None:
    anatomy = anatomy_of(family)
    assert anatomy.tied is tied
    assert anatomy.head is not None
    head, table = (anatomy.part(kind, {}) for kind in (anatomy.head, anatomy.embeddings))
    assert (head == table) is tied
    assert table.roles == ("rows", "write")


def test_what_shapes_cannot_tell_is_asked_and_parameters_of_one_sort_share_a_question() -> None:
    anatomy = anatomy_of("gpt2")
    (question,) = anatomy.options
    asked = [kind for kind, part in anatomy.parts.items() if part.layout == question]
    assert asked == ["transformer.h.*.attn.c_attn.weight", "transformer.h.*.attn.c_attn.bias"]
    assert anatomy.options[question] == ("one after the other", "by heads")
    assert not anatomy_of("bert").options


def test_the_orientation_of_bare_matrices_follows_the_answer() -> None:
    small = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    small |= {"num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 4}
    anatomy = find_anatomy(MixtralForCausalLM, MixtralConfig(**small))
    kind = "model.layers.*.mlp.experts.down_proj"
    question = anatomy.parts[kind].orientation
    assert question is not None
    assert anatomy.part(kind, {question: "out x in"}).roles[-2:] == ("write", "read")
    assert anatomy.part(kind, {question: "in x out"}).roles[-2:] == ("read", "write")


class _OutOfOrder(BertForMaskedLM):
    def forward(self, *args, **kwargs):
        raise RuntimeError("out of order")


def test_a_class_that_does_not_run_is_refused_with_its_own_words() -> None:
    with pytest.raises(ValueError, match="`_OutOfOrder` cannot be taken apart: out of order"):
        find_anatomy(_OutOfOrder, make_config("bert"))
