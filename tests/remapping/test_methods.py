"""A name stands for one way to widen and one to deepen, and either may be replaced by a user's own."""

import pytest
import torch
from tiny_teachers import make_tiny

from hf_dwt import from_weak_teacher, register_depth_method, register_width_method
from hf_dwt.remapping.depth import DEPTH_METHODS
from hf_dwt.remapping.methods import METHODS, width_and_depth
from hf_dwt.remapping.width import WIDTH_METHODS, copied


def test_every_name_stands_for_methods_that_exist() -> None:
    for name, (width, depth) in METHODS.items():
        assert width_and_depth(name, None, None) == (width, depth)
        assert width in WIDTH_METHODS
        assert depth in DEPTH_METHODS


def test_a_part_that_is_named_alone_replaces_that_part_only() -> None:
    assert width_and_depth("aki", None, "identity") == ("aki", "identity")
    assert width_and_depth("stack", "fpi", None) == ("fpi", "stack")
    assert width_and_depth("pad", None, None) == ("pad", "identity"), "a width method goes with exact depth"


def test_fpi_is_stack_at_whole_multiples_of_the_width() -> None:
    teacher = make_tiny("bert")
    wider = {"hidden_size": 2 * teacher.config.hidden_size, "num_hidden_layers": 2 * teacher.config.num_hidden_layers}
    fpi, stack = (from_weak_teacher(teacher, method=name, **wider).state_dict() for name in ("fpi", "stack"))
    assert [name for name in stack if not torch.equal(fpi[name], stack[name])] == []


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (("twice", None, None), r"no method 'twice'\. Known: random, exact, near, .*, pad"),
        (("exact", "stack", None), r"no width method 'stack'\. Known: exact"),
        (("exact", None, "fpi"), r"no depth method 'fpi'\. Known: identity"),
    ],
)
def test_an_unknown_name_is_refused_with_those_known(
    request_: tuple[str, str | None, str | None], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        width_and_depth(*request_)


def test_methods_of_ones_own_may_be_named_as_method_and_grow_a_student() -> None:
    asked = []

    @register_depth_method("first_again")
    def first_again(num_old: int, num_new: int) -> list[int]:
        return [max(0, layer - (num_new - num_old)) for layer in range(num_new)]

    @register_width_method("copied_too")
    def copied_too(axis: str, num_old: int, num_new: int) -> list[int]:
        asked.append(axis)
        return copied(axis, num_old, num_new)

    assert width_and_depth("first_again", None, None) == ("exact", "first_again")
    assert width_and_depth("copied_too", None, None) == ("copied_too", "identity")
    teacher = make_tiny("llama")
    student, report = from_weak_teacher(
        teacher,
        num_hidden_layers=4,
        hidden_size=64,
        method="first_again",
        width_method="copied_too",
        output_report=True,
    )
    assert (report.plan.width_method, report.plan.depth_method) == ("copied_too", "first_again")
    assert [layer.source for layer in report.plan.layers] == [0, 0, 0, 1]
    norms = [layer.input_layernorm.weight for layer in teacher.model.layers]
    for layer, source in zip(student.model.layers, (0, 0, 0, 1), strict=True):
        assert layer.input_layernorm.weight.tolist() == norms[source].repeat(2).tolist()
    assert {"hidden", "intermediate", "key_value_heads"} <= set(asked)
