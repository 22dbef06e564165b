"""The modules of a layer are found by what they read and write, and by the order in which they ran."""

from dataclasses import replace

import pytest
from tiny_teachers import make_tiny

from hf_dwt.remapping.anatomy import find_anatomy
from hf_dwt.remapping.axes import Dimension
from hf_dwt.remapping.blocks import Blocks
from hf_dwt.remapping.depth import PostNormBlock


def blocks_of(family: str) -> Blocks:
    model = make_tiny(family)
    return Blocks(find_anatomy(type(model), model.config), {})


@pytest.mark.parametrize(
    ("family", "writers"),
    [
        ("bert", ["bert.encoder.layer.*.attention.output.dense", "bert.encoder.layer.*.output.dense"]),
        ("gpt2", ["transformer.h.*.attn.c_proj", "transformer.h.*.mlp.c_proj"]),
        ("llama", ["model.layers.*.self_attn.o_proj", "model.layers.*.mlp.down_proj"]),
        ("gpt_neox", ["gpt_neox.layers.*.attention.dense", "gpt_neox.layers.*.mlp.dense_4h_to_h"]),
        ("ctrl", ["transformer.h.*.multi_head_attention.dense", "transformer.h.*.ffn.2"]),
    ],
)
def test_what_a_layer_adds_to_the_residual_stream_is_written_by_two_modules(family: str, writers: list[str]) -> None:
    assert blocks_of(family).residual_writers == writers


@pytest.mark.parametrize(
    ("family", "norm"),
    [
        ("bert", "bert.embeddings.LayerNorm"),
        ("modernbert", "model.embeddings.norm"),
        ("llama", None),
        ("gpt2", None),
        ("electra", None),  # Its norm is one of embeddings, which another matrix makes hidden units of.
        ("electra-same-embedding", "electra.embeddings.LayerNorm"),
    ],
)
def test_the_norm_of_the_embeddings_is_found_where_it_is_one_of_hidden_units(family: str, norm: str | None) -> None:
    assert blocks_of(family).embedding_norm == norm


def test_the_parts_of_a_layer_that_normalises_after_its_sums_are_told_by_their_order() -> None:
    layer = "bert.encoder.layer.*"
    assert blocks_of("bert").post_norm == PostNormBlock(
        attention_out=f"{layer}.attention.output.dense",
        attention_norm=f"{layer}.attention.output.LayerNorm",
        up=f"{layer}.intermediate.dense",
        down=f"{layer}.output.dense",
        norm=f"{layer}.output.LayerNorm",
    )
    assert blocks_of("distilbert").post_norm.norm == "distilbert.transformer.layer.*.output_layer_norm"


def test_a_module_that_reads_the_residual_stream_writes_nothing_that_could_be_silenced() -> None:
    blocks = blocks_of("llama")
    kind = "model.layers.*.self_attn.q_proj.weight"
    hidden = Dimension(("hidden",))
    parts = {**blocks.anatomy.parts, kind: replace(blocks.anatomy.parts[kind], dimensions=(hidden, hidden))}
    changed = Blocks(replace(blocks.anatomy, parts=parts), {})
    assert changed.residual_writers == blocks.residual_writers


def test_a_third_norm_in_a_layer_that_normalises_after_its_sums_is_refused() -> None:
    anatomy = blocks_of("bert").anatomy
    added = "bert.encoder.layer.{}.output.another_norm"
    norm = anatomy.flow.norms["bert.encoder.layer.*.output.LayerNorm"]
    norms = {**anatomy.flow.norms, added.format("*"): norm}
    flow = replace(anatomy.flow, norms=norms, order=[*anatomy.flow.order, added.format(0)])
    with pytest.raises(ValueError, match="this one has 3 norms, and 1 matrices"):
        assert Blocks(replace(anatomy, flow=flow), {}).post_norm


@pytest.mark.parametrize(("family", "counts"), [("llama", "2 norms, and 3 matrices"), ("gemma3", "6 norms, and 2")])
def test_a_layer_of_other_parts_is_refused_with_their_numbers(family: str, counts: str) -> None:
    with pytest.raises(ValueError, match=f"attention and one feed-forward block; this one has {counts}"):
        assert blocks_of(family).post_norm
