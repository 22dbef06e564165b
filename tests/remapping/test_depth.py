"""Layer maps against their formulas, and the layer behind a norm that changes nothing."""

import pytest
import torch
from torch.nn import functional

from hf_dwt import register_depth_method
from hf_dwt.remapping.depth import Layer, affine_source, layer_map, with_fitting_sources


@pytest.mark.parametrize(
    ("method", "sources"),
    [
        ("repeat_last", [0, 1, 2, 2, 2, 2, 2]),
        ("stack", [0, 1, 2, 0, 1, 2, 0]),
        ("interleave", [0, 0, 0, 1, 1, 2, 2]),
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


@pytest.mark.parametrize("method", ["identity", "repeat_last", "interleave", "spread"])
def test_no_layer_is_dropped_and_none_overtakes_another(method: str) -> None:
    for num_old in range(1, 9):
        for num_new in range(num_old + 1, 3 * num_old + 2):
            sources = [layer.source for layer in layer_map(method, num_old, num_new)]
            assert sources == sorted(sources)
            assert set(sources) == set(range(num_old))


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


def test_the_last_silent_layer_of_a_run_gets_the_affine_part_of_the_layer_before_the_run() -> None:
    layers = [Layer(0), Layer(5, True), Layer(0, True), Layer(1), Layer(2), Layer(2, True)]
    assert [affine_source(layers, number) for number in range(6)] == [None, None, 0, 1, None, 2]


def test_a_run_of_silent_layers_needs_a_layer_before_it() -> None:
    with pytest.raises(ValueError, match="the first one cannot be a layer that changes nothing"):
        affine_source([Layer(0, True), Layer(0)], 0)


def test_what_is_normalised_is_normalised_again_and_scaled_at_the_end() -> None:
    torch.manual_seed(0)
    shape, double = (6,), torch.float64
    weight, bias = torch.tensor([1.3, 1e-33, -0.4, 0.0, 1.0, 2.0], dtype=double), torch.randn(6, dtype=double)
    stream = torch.randn(20, 6, dtype=double)
    before = functional.layer_norm(stream, shape, weight, bias, eps=0.0)
    handed_on = functional.layer_norm(functional.layer_norm(stream, shape, eps=0.0), shape, eps=0.0)
    after = functional.layer_norm(handed_on, shape, weight, bias, eps=0.0)
    torch.testing.assert_close(after, before, rtol=1e-12, atol=1e-12)
