"""A head that is run in parts gives the gradients of a head that is run at once."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from test_positions import CAUSAL, MASKED, batch, build, peft_asks_by_an_old_name, rows_seen_by_the_head
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from hf_dwt import heads as module
from hf_dwt.heads import head_at, parts_of, total_over_parts, whole_head
from hf_dwt.language_models import language_model_kind
from hf_dwt.positions import Positions

NAMES = [*MASKED, *CAUSAL]
VOCAB_SIZE = 53


@pytest.fixture
def few_logits(monkeypatch: pytest.MonkeyPatch) -> int:
    """Seven positions a part at most."""
    monkeypatch.setattr(module, "_MOST_LOGITS_ON_CPU", 7 * VOCAB_SIZE)
    return 7


def value_of(logits: Tensor, rows: slice, num_positions: int) -> Tensor:
    """Every logit of every position weighs differently."""
    weights = torch.linspace(-1, 1, num_positions * logits.shape[-1], dtype=logits.dtype).view(num_positions, -1)
    return (weights[rows] * logits.tanh()).sum()


def gradients(
    model: nn.Module, inputs: dict[str, Tensor], positions: Positions, parts: list[slice]
) -> dict[str, Tensor]:
    model.zero_grad()
    head = head_at(model, inputs, positions, parts)
    total = total_over_parts(head, lambda logits, rows: value_of(logits, rows, len(positions)))
    (3 * total).backward()
    return {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None} | {"": total}


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_all_parameters_are_those_of_the_head_at_once(name: str, few_logits: int) -> None:
    model = build(name)
    inputs, positions = batch(language_model_kind(model), num_rows=5, share=0.9)
    parts = parts_of(positions, VOCAB_SIZE)
    assert len(parts) > 3
    expected, actual = (gradients(model, inputs, positions, each) for each in ([slice(None)], parts))
    assert actual.keys() == expected.keys()
    for each, gradient in expected.items():
        torch.testing.assert_close(actual[each], gradient, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["Bert", "LlamaForCausalLM"])
def test_the_head_sees_each_position_once_and_the_backbone_runs_once(name: str, few_logits: int) -> None:
    model = build(name)
    inputs, positions = batch(language_model_kind(model), num_rows=5, share=0.9)
    runs: list[None] = []
    layer = next(each for each in model.modules() if isinstance(each, nn.Embedding))
    layer.register_forward_hook(lambda *_: runs.append(None))
    seen = rows_seen_by_the_head(model, lambda: gradients(model, inputs, positions, parts_of(positions, VOCAB_SIZE)))
    assert seen == len(positions) + 1, "the first position finishes the wrapped forward pass"
    assert len(runs) == 1


def adapted(target: str) -> Callable[[], nn.Module]:
    return lambda: get_peft_model(build("LlamaForCausalLM"), LoraConfig(target_modules=[target])).double().eval()


def frozen_backbone() -> nn.Module:
    model = build("LlamaForCausalLM")
    model.model.requires_grad_(False)
    return model


def recomputing() -> nn.Module:
    model = build("LlamaForCausalLM").train()
    model.activation_checkpointing_enable({"use_reentrant": False})
    return model


MODELS = {"adapters": adapted("q_proj"), "adapters on the head": adapted("lm_head")}
MODELS |= {"frozen backbone": frozen_backbone, "recomputed activations": recomputing}


@peft_asks_by_an_old_name
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
def test_models_that_train_in_part_or_recompute_give_the_same_gradients(
    make: Callable[[], nn.Module], few_logits: int
) -> None:
    model = make()
    inputs, positions = batch("causal", num_rows=5, share=0.9)
    expected, actual = (
        gradients(model, inputs, positions, parts) for parts in ([slice(None)], parts_of(positions, VOCAB_SIZE))
    )
    assert actual.keys() == expected.keys()
    for each, gradient in expected.items():
        torch.testing.assert_close(actual[each], gradient, rtol=1e-9, atol=1e-9)


class NewTensors(TorchDispatchMode):
    """Counts the operations that make a tensor of some shape in memory of its own."""

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.shape: torch.Size = shape
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.shape == self.shape:
            memory = result.untyped_storage()
            known = any(isinstance(arg, Tensor) and arg.data_ptr() == memory.data_ptr() for arg in args)
            self.names += [] if known else [str(func)]
        return result


def new_gradients_of_the_head(autocast: bool) -> list[str]:
    """Operations that make a tensor as large as the weight of a head, while it is run in parts."""
    model = build("LlamaForCausalLM").float()
    inputs, positions = batch("causal", num_rows=5, share=0.9)
    parts = parts_of(positions, VOCAB_SIZE)
    assert len(parts) > 3
    head = head_at(model, inputs, positions, parts)
    with (
        NewTensors(model.lm_head.weight.shape) as new,
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
    ):
        total_over_parts(head, lambda logits, rows: value_of(logits, rows, len(positions)))
    return new.names


def test_the_parts_add_to_one_gradient_of_the_heads_weight(few_logits: int) -> None:
    assert new_gradients_of_the_head(autocast=False) == ["aten.zeros_like.default"]
    assert len(new_gradients_of_the_head(autocast=True)) > 3, "PyTorch's own way makes one for each part"


@pytest.mark.parametrize("name", ["Bert", "LlamaForCausalLM"])
def test_under_autocast_the_gradients_are_those_of_the_head_at_once(name: str, few_logits: int) -> None:
    model = build(name).float()
    inputs, positions = batch(language_model_kind(model), num_rows=5, share=0.9)
    with torch.autocast("cpu", torch.bfloat16):
        expected, actual = (
            gradients(model, inputs, positions, parts) for parts in ([slice(None)], parts_of(positions, VOCAB_SIZE))
        )
    assert actual.keys() == expected.keys()
    all_expected, all_actual = (torch.cat([each.flatten() for each in own.values()]) for own in (expected, actual))
    assert (all_actual - all_expected).norm() < 0.02 * all_expected.norm()


def test_without_gradients_the_parts_are_summed(few_logits: int) -> None:
    model = build("Bert")
    inputs, positions = batch("masked", num_rows=5, share=0.9)
    with torch.no_grad():
        totals = [
            total_over_parts(
                head_at(model, inputs, positions, parts), lambda logits, rows: value_of(logits, rows, len(positions))
            )
            for parts in ([slice(None)], parts_of(positions, VOCAB_SIZE))
        ]
    torch.testing.assert_close(totals[1], totals[0])


def test_a_model_answers_as_before_after_its_head_was_run_in_parts(few_logits: int) -> None:
    model = build("Bert")
    inputs, positions = batch("masked", num_rows=5, share=0.9)
    before = model(**inputs).logits
    gradients(model, inputs, positions, parts_of(positions, VOCAB_SIZE))
    assert torch.equal(model(**inputs).logits, before)


def test_a_loss_scale_beyond_float16_does_not_overflow_its_gradients() -> None:
    states = torch.full((2, 3), 0.5, dtype=torch.float16, requires_grad=True)
    head = module.Head(states, lambda rows: rows.float() * 1e-3, [slice(0, 1), slice(1, 2)])
    (total_over_parts(head, lambda logits, _: logits.sum()) * 1e6).backward()
    torch.testing.assert_close(states.grad, torch.full_like(states, 1000), rtol=1e-2, atol=0)


def test_parameters_whose_gradients_share_their_memory_get_their_own() -> None:
    states = torch.randn(4, 3, dtype=torch.float64)
    first, second = (torch.randn(4, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    head = module.Head(states, lambda rows: rows * 2 + (first + second)[: len(rows)], [slice(0, 2), slice(2, 4)])
    total_over_parts(head, lambda logits, _: logits.square().sum()).backward()
    expected = [torch.zeros_like(first).requires_grad_() for _ in range(2)]
    whole = sum(
        (states[rows] * 2 + (first.detach() + second.detach() + sum(expected))[:2]).square().sum()
        for rows in head.parts
    )
    whole.backward()
    torch.testing.assert_close(first.grad, expected[0].grad)
    torch.testing.assert_close(second.grad, expected[1].grad)


def test_a_second_backward_pass_is_refused_instead_of_being_wrong(few_logits: int) -> None:
    model = build("Bert")
    inputs, positions = batch("masked", num_rows=5, share=0.9)
    head = head_at(model, inputs, positions, parts_of(positions, VOCAB_SIZE))
    total = total_over_parts(head, lambda logits, rows: value_of(logits, rows, len(positions)))
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="for one backward pass only"):
        total.backward()


@pytest.mark.parametrize("num_positions", [0, 1, 7, 8, 50])
def test_parts_cover_every_position_once_and_fit_the_limit(num_positions: int, few_logits: int) -> None:
    positions = Positions(torch.arange(num_positions), torch.arange(num_positions), 64)
    parts = [positions[rows] for rows in parts_of(positions, VOCAB_SIZE)]
    assert torch.equal(torch.cat([part.indices for part in parts]), positions.indices)
    assert torch.equal(torch.cat([part.labels for part in parts]), positions.labels)
    assert all(len(part) <= few_logits for part in parts)
    assert len(parts) == max(1, -(-num_positions // few_logits))


def test_a_whole_head_gives_its_logits_back() -> None:
    logits = torch.randn(5, 7)
    head = whole_head(logits)
    assert torch.equal(head.logits(head.parts[0]), logits)
    assert torch.equal(head.logits(slice(1, 3)), logits[1:3])
