"""Widths that are no multiple: backbones to rounding, heads near, and the pieces of which that is made."""

import pytest
import torch
from tiny_teachers import VOCABULARY, batch, largest_difference, make_tiny, outputs
from torch.nn import functional

from hf_dwt import from_weak_teacher
from hf_dwt.remapping.near import balanced, carrying_norm, helper_readers, helper_writers, in_layer_of, new_units


@pytest.mark.parametrize("num_new", [2, 3, 4, 7, 64])
def test_the_factors_of_new_units_sum_to_nothing_and_none_is_nothing(num_new: int) -> None:
    factors = balanced(num_new)
    assert float(factors.sum()) == 0
    assert bool((factors != 0).all())


@pytest.mark.parametrize(("num_old", "num_new"), [(32, 16), (20, 7), (9, 2)])
def test_a_norm_carries_the_mean_of_what_it_writes(num_old: int, num_new: int) -> None:
    torch.manual_seed(0)
    weight, bias = 1 + 0.3 * torch.randn(num_old), 0.3 * torch.randn(num_old)
    given = torch.randn(50, num_old)
    plain = functional.layer_norm(given, (num_old,), weight, bias, eps=0.0)
    wider = torch.cat([given, new_units(weight, given, num_new)], dim=-1)
    carried = functional.layer_norm(wider, (num_old + num_new,), *carrying_norm(weight, bias, num_new), eps=0.0)
    torch.testing.assert_close(carried[:, :num_old], plain, rtol=1e-4, atol=1e-4)
    mean = plain.mean(-1, keepdim=True).expand(-1, num_new)
    torch.testing.assert_close(carried[:, num_old:], mean, rtol=1e-4, atol=1e-3)
    # What a plain norm would leave there is far from it.
    assert float((bias.mean() - mean).abs().max()) > 0.05


@pytest.mark.parametrize("activation", [functional.gelu, functional.relu, functional.silu])
def test_four_helpers_pass_on_the_mean_and_the_deviation(activation: object) -> None:
    torch.manual_seed(0)
    weight, given = 1 + 0.3 * torch.randn(20), torch.randn(9, 20)
    passed_on = activation(given @ helper_readers(weight).T) @ helper_writers(6).float().T  # type: ignore[operator]
    torch.testing.assert_close(passed_on, new_units(weight, given, 6), rtol=1e-5, atol=1e-5)


def test_a_module_is_named_in_the_layer_of_another() -> None:
    assert in_layer_of("encoder.layer.3.output.dense", "encoder.layer.*.output.norm") == "encoder.layer.3.output.norm"


@pytest.mark.parametrize("width", [48, 40, 72])
def test_a_bare_encoder_grows_to_any_width_and_keeps_what_it_says(width: int) -> None:
    teacher = make_tiny("bert", class_name="BertModel")
    student, report = from_weak_teacher(teacher, method="near", hidden_size=width, output_report=True)
    assert report.difference.largest <= 1e-3
    torch.testing.assert_close(outputs(student)[:, :32], outputs(teacher), rtol=0, atol=1e-3)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_bert_with_its_head_is_near_at_half_as_much_again(seed: int) -> None:
    teacher = make_tiny("bert", hidden_size=128, intermediate_size=512, seed=seed)
    student, report = from_weak_teacher(teacher, method="near", hidden_size=192, output_report=True)
    assert not report.exact
    assert "near its teacher, not its equal: largest difference" in report.warnings[0]
    ids = torch.randint(3, VOCABULARY, (64, 40), generator=torch.Generator().manual_seed(1))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    theirs, ours = outputs(teacher, inputs), outputs(student, inputs)
    assert float((theirs.argmax(-1) == ours.argmax(-1)).double().mean()) >= 0.98
    assert float((theirs - ours).abs().max()) <= 0.05
    # `fpi`, which copies some units more often than others, is far off.
    copied = outputs(from_weak_teacher(teacher, method="fpi", hidden_size=192), inputs)
    assert float((theirs - copied).abs().max()) > 0.5


@pytest.mark.parametrize("family", ["albert", "electra"])
def test_heads_that_read_another_width_leave_nothing_to_be_off_by(family: str) -> None:
    teacher = make_tiny(family)
    student = from_weak_teacher(teacher, method="near", hidden_size=48)
    assert largest_difference(teacher, student) <= 2e-5


def test_shared_layers_and_widths_far_beyond_twice_are_near_too() -> None:
    for family, request in (("albert", {"embedding_size": 32, "num_hidden_groups": 2}), ("modernbert", {})):
        teacher = make_tiny(family, **request)
        wider = {"hidden_size": 80, **({"embedding_size": 80} if family == "albert" else {})}
        student = from_weak_teacher(teacher, method="near", **wider)
        agreement = outputs(teacher).argmax(-1) == outputs(student)[..., :VOCABULARY].argmax(-1)
        assert float(agreement.double().mean()) >= 0.9
        copied = from_weak_teacher(teacher, method="fpi", **wider)
        assert largest_difference(teacher, student) < largest_difference(teacher, copied) / 2


def test_depth_grows_along_with_a_near_width() -> None:
    teacher = make_tiny("bert", class_name="BertModel")
    student = from_weak_teacher(teacher, method="near", hidden_size=48, num_hidden_layers=4)
    mask = batch()["attention_mask"].bool()
    assert outputs(student).shape == (int(mask.sum()), 48)
    torch.testing.assert_close(outputs(student)[:, :32], outputs(teacher), rtol=0, atol=1e-3)


def test_feed_forward_units_that_do_not_grow_cannot_help() -> None:
    with pytest.raises(ValueError, match="4 feed-forward units have to be new; 0 are"):
        from_weak_teacher(make_tiny("bert"), method="near", hidden_size=48, intermediate_size=80)
