"""Costs by arithmetic agree with the products that a forward pass consists of."""

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from hf_dwt.costs import StepCost, forward_flops

SIZE = {"vocab_size": 50, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "pad_token_id": None}


def bert(num_layers: int) -> BertForMaskedLM:
    with torch.device("meta"):
        return BertForMaskedLM(BertConfig(num_hidden_layers=num_layers, attn_implementation="eager", **SIZE)).eval()


def test_a_forward_pass_costs_its_products() -> None:
    batch, length, positions, hidden, inner, vocabulary, layers = 3, 7, 5, 16, 32, 50, 2
    tokens = batch * length
    layer = tokens * (4 * hidden * hidden + 2 * hidden * inner) + 2 * batch * length * length * hidden
    head = positions * (hidden * hidden + hidden * vocabulary)
    assert forward_flops(bert(layers), batch, length, positions) == 2 * (layers * layer + head)


def test_the_head_costs_by_the_positions_that_are_asked_for() -> None:
    few, many = (forward_flops(bert(1), 2, 8, positions) for positions in (1, 16))
    assert many - few == 2 * 15 * (16 * 16 + 16 * 50)


def test_a_step_is_three_forward_passes_and_the_teachers_one() -> None:
    cost = StepCost(student_forward=10, teacher_forward=6)
    assert (cost.standalone, cost.distilled) == (30, 36)
    assert cost.teacher_share == pytest.approx(1 / 6)


def test_a_model_that_looks_at_its_input_is_refused_by_name() -> None:
    model = bert(1)
    model.register_forward_pre_hook(lambda *_, **__: bool(torch.zeros(1, device="meta").any()))
    with pytest.raises(ValueError, match="`BertForMaskedLM` cannot be counted"):
        forward_flops(model, 1, 4, 1)
