"""Models are loaded and grown whole, also while an engine would have them divided."""

import gc
import os
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import build, largest_difference, make_teacher, tokenizer, weights_of
from torch.profiler import ProfilerActivity, profile
from transformers import BertConfig, BertForMaskedLM
from transformers.integrations.deepspeed import HfDeepSpeedConfig, is_deepspeed_zero3_enabled, unset_hf_deepspeed_config

from hf_dwt import from_weak_teacher, load_teacher
from hf_dwt.last_layer import find_cut
from hf_dwt.unsharded import unsharded


@pytest.fixture
def zero3() -> Iterator[HfDeepSpeedConfig]:
    """What training arguments with ZeRO-3 leave behind."""
    yield HfDeepSpeedConfig({"zero_optimization": {"stage": 3}, "train_micro_batch_size_per_gpu": 1})
    unset_hf_deepspeed_config()


def test_zero3_is_off_inside_and_on_again_after(zero3: HfDeepSpeedConfig) -> None:
    assert is_deepspeed_zero3_enabled()
    with unsharded():
        assert not is_deepspeed_zero3_enabled()
        with unsharded():
            pass
        assert not is_deepspeed_zero3_enabled()
    assert is_deepspeed_zero3_enabled()
    with pytest.raises(KeyError, match="an error"), unsharded():
        raise KeyError("an error")
    assert is_deepspeed_zero3_enabled()


def test_without_a_configuration_there_is_none_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FSDP_CPU_RAM_EFFICIENT_LOADING", raising=False)
    with unsharded():
        assert not is_deepspeed_zero3_enabled()
    assert not is_deepspeed_zero3_enabled()
    assert "FSDP_CPU_RAM_EFFICIENT_LOADING" not in os.environ


def test_fsdp_has_every_rank_read_the_weights_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", "true")
    with unsharded():
        assert os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] == "false"
    assert os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] == "true"


def loaded(folder: Path) -> Any:
    return load_teacher(folder).model


def grown(folder: Path) -> Any:
    return from_weak_teacher(folder, num_hidden_layers=2, hidden_size=24)


def grown_at_random(folder: Path) -> Any:
    return from_weak_teacher(folder, num_hidden_layers=2, method="random")


@pytest.mark.parametrize("make", [loaded, grown, grown_at_random])
def test_teachers_and_students_are_whole_under_zero3(
    make: Callable[[Path], Any], zero3: HfDeepSpeedConfig, tmp_path: Path
) -> None:
    make_teacher().save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    model = make(tmp_path)
    assert is_deepspeed_zero3_enabled()
    with unsharded():
        assert largest_difference(weights_of(model), weights_of(make(tmp_path))) == 0
    assert all(each.numel() for each in model.parameters())


def test_the_last_layer_is_cut_on_a_whole_model(zero3: HfDeepSpeedConfig) -> None:
    # Of a size of its own, since what has been found before is known.
    assert find_cut(build("masked", hidden_size=20)) is not None


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_growing_holds_one_whole_student_in_float32_and_one_whole_teacher(dtype: str | None, tmp_path: Path) -> None:
    # Of a small vocabulary, so that weights are most of what there is.
    sizes = {"hidden_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 1024}
    teacher = BertForMaskedLM(BertConfig(**sizes, vocab_size=100))
    teacher.save_pretrained(tmp_path)
    student: Any = None

    def grow() -> None:
        nonlocal student
        student = from_weak_teacher(tmp_path, num_hidden_layers=4, hidden_size=512, dtype=dtype)

    most = most_memory_of(grow)
    whole = sum(each.num_parameters() * torch.float32.itemsize for each in (student, teacher))
    # A second student would be 0.8 of it.
    assert 0.8 * whole < most < 1.6 * whole


def most_memory_of(call: Callable[[], None]) -> int:
    """Most bytes that tensors on the CPU hold at one time while something is done."""
    # What dies meanwhile, and was not born here, would be subtracted.
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    results = profiler.profiler.kineto_results.events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in results if event.name() == "[memory]")
    return max(accumulate(change for _, change in changes))
