"""Costs by arithmetic agree with the products that a forward pass consists of."""

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from hf_dwt import last_layer
from hf_dwt.costs import StepCost, configured_flops, forward_flops

SIZE = {"vocab_size": 50, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "pad_token_id": None}


def bert(num_layers: int) -> BertForMaskedLM:
    with torch.device("meta"):
        return BertForMaskedLM(BertConfig(num_hidden_layers=num_layers, attn_implementation="eager", **SIZE)).eval()


def test_a_forward_pass_costs_its_products() -> None:
    batch, length, positions, hidden, inner, vocabulary, layers = 3, 7, 5, 16, 32, 50, 2
    tokens = batch * length
    attention = 3 * tokens * hidden * hidden + 2 * batch * length * length * hidden
    by_token = hidden * hidden + 2 * hidden * inner
    head = positions * (hidden * hidden + hidden * vocabulary)
    # The last layer takes by themselves only the tokens that are asked about.
    products = layers * attention + ((layers - 1) * tokens + positions) * by_token + head
    assert forward_flops(bert(layers), batch, length, positions) == 2 * products


def test_the_head_costs_by_the_positions_that_are_asked_for() -> None:
    most, all_tokens = (forward_flops(bert(1), 2, 8, positions) for positions in (9, 16))
    assert all_tokens - most == 2 * 7 * (16 * 16 + 16 * 50)


def test_costs_are_the_same_the_first_time_and_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_layer, "_known", {})
    assert forward_flops(bert(2), 2, 8, 3) == forward_flops(bert(2), 2, 8, 3)
    with torch.device("cpu"):
        model = BertForMaskedLM(BertConfig(num_hidden_layers=2, attn_implementation="eager", **SIZE))
    assert last_layer.find_cut(model) is not None, "counting on the meta device leaves what was found"


def test_a_step_is_three_forward_passes_and_the_teachers_one() -> None:
    cost = StepCost(student_forward=10, teacher_forward=6)
    assert (cost.standalone, cost.distilled) == (30, 36)
    assert cost.teacher_share == pytest.approx(1 / 6)


def test_a_model_that_looks_at_its_input_is_refused_by_name() -> None:
    model = bert(1)
    model.register_forward_pre_hook(lambda *_, **__: bool(torch.zeros(1, device="meta").any()))
    with pytest.raises(ValueError, match="`BertForMaskedLM` cannot be counted"):
        forward_flops(model, 1, 4, 1)


@pytest.mark.parametrize(
    ("part", "message"),
    [("__init__", "No model of a `BertConfig` can be built"), ("forward", "`BertForMaskedLM` cannot be counted")],
)
def test_whatever_a_modelling_file_raises_is_a_cost_that_is_not_known(
    part: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise KeyError("no such kernel")

    monkeypatch.setattr(BertForMaskedLM, part, fails)
    with pytest.raises(ValueError, match=message):
        configured_flops(BertConfig(num_hidden_layers=1, **SIZE), "masked", 1, 4, 1)
