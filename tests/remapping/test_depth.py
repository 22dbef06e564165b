"""Layer maps against their formulas, and the layer behind a norm that changes nothing."""

import pytest
import torch
from torch.nn import functional

from hf_dwt import register_depth_method
from hf_dwt.remapping.depth import Layer, PostNormBlock, layer_map, post_norm_identity, with_fitting_sources


@pytest.mark.parametrize(
    ("method", "sources"),
    [
        ("repeat_last", [0, 1, 2, 2, 2, 2, 2]),
        ("stack", [0, 1, 2, 0, 1, 2, 0]),
        ("interleave", [0, 0, 0, 1, 1, 1, 2]),
        ("spread", [0, 0, 1, 1, 1, 2, 2]),
        ("identity", [0, 0, 0, 1, 1, 2, 2]),
    ],
)
def test_seven_layers_come_from_three(method: str, sources: list[int]) -> None:
    layers = layer_map(method, 3, 7)
    assert [layer.source for layer in layers] == sources
    passing = [layer.identity for layer in layers]
    expected = [method == "identity" and index > 0 and sources[index - 1] == sources[index] for index in range(7)]
    assert passing == expected


def test_a_stack_that_does_not_grow_stays_as_it_is() -> None:
    assert layer_map("stack", 3, 3) == (Layer(0), Layer(1), Layer(2))


@pytest.mark.parametrize("wrong", [[0, 1], [0, 1, 9], [0, -1, 1]])
def test_a_method_that_names_other_layers_is_refused(wrong: list[int]) -> None:
    register_depth_method("wrong")(lambda old, new: wrong)
    with pytest.raises(ValueError, match="must name 3 of the layers 0 to 1"):
        layer_map("wrong", 2, 3)


def test_a_copy_moves_to_the_nearest_layer_of_its_names_and_no_other_layer_moves() -> None:
    first, others = {"h.*.mlp"}, {"h.*.norm", "h.*.mlp"}
    layers = (Layer(0), Layer(0, True), Layer(0), Layer(1), Layer(2))
    fitting = with_fitting_sources(layers, [first, others, others], [first, others, others, others, others])
    assert fitting == (Layer(0), Layer(1, True), Layer(0), Layer(1), Layer(2))
    alike = [others] * 3
    assert with_fitting_sources(layers, alike, [others] * 5) == layers
    assert with_fitting_sources(layers, [first] * 3, [others] * 5) == layers, "where none fits it is left"


def test_unknown_and_built_in_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no depth method 'twice'\. Known: identity"):
        layer_map("twice", 2, 4)
    with pytest.raises(ValueError, match="'stack' is a built-in depth method"):
        register_depth_method("stack")(lambda old, new: [0] * new)


@pytest.mark.parametrize("activation", [functional.gelu, functional.relu, functional.silu])
def test_the_layer_passes_on_what_the_norm_before_it_wrote(activation) -> None:
    torch.manual_seed(0)
    hidden, units, double = 6, 15, torch.float64
    weight, bias = 1 + 0.3 * torch.randn(hidden, dtype=double), torch.randn(hidden, dtype=double)
    block = PostNormBlock("out", "attention_norm", "up", "down", "norm")
    shapes = {("out", False): (hidden, hidden), ("out", True): (hidden,), ("attention_norm", False): (hidden,)}
    shapes |= {("attention_norm", True): (hidden,), ("up", False): (units, hidden), ("up", True): (units,)}
    shapes |= {("down", False): (hidden, units), ("down", True): (hidden,)}
    made = {
        key: post_norm_identity(block, *key, torch.randn(shape, dtype=double), weight, bias)
        for key, shape in shapes.items()
    }
    before = functional.layer_norm(torch.randn(20, hidden, dtype=double), (hidden,), weight, bias, eps=0.0)
    found = torch.randn(20, hidden, dtype=double) @ made["out", False].T + made["out", True]
    norm = (made["attention_norm", False], made["attention_norm", True])
    middle = functional.layer_norm(before + found, (hidden,), *norm, eps=0.0)
    fed = activation(middle @ made["up", False].T + made["up", True]) @ made["down", False].T + made["down", True]
    after = functional.layer_norm(middle + fed, (hidden,), weight, bias, eps=0.0)
    torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-9)
