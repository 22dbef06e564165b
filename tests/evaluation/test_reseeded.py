import random

import numpy as np
import pytest
import torch
from transformers import DataCollatorForLanguageModeling

from hf_dwt.evaluation.reseeded import ReseededCollator


def draw(examples):
    """A collator that draws from every global generator of the CPU."""
    return [random.random(), float(np.random.rand()), torch.rand(1).item(), *examples]


def states() -> str:
    return repr((random.getstate(), np.random.get_state(), torch.get_rng_state().tolist()))


def test_no_global_generator_is_moved():
    before = states()
    ReseededCollator(draw, seed=3)([1, 2])
    assert states() == before
    draw([1, 2])
    assert states() != before


def test_no_global_generator_is_moved_by_a_collator_that_fails():
    def fail(examples):
        draw(examples)
        raise KeyError("input_ids")

    before = states()
    with pytest.raises(KeyError, match="input_ids"):
        ReseededCollator(fail, seed=3)([1])
    assert states() == before


def test_the_same_examples_give_the_same_batch_whatever_happened_before():
    collator = ReseededCollator(draw, seed=3)
    first = collator([1, 2])
    draw([])
    assert collator([1, 2]) == first
    assert ReseededCollator(draw, seed=3)([1, 2]) == first


def test_another_seed_gives_another_batch():
    first, second = ReseededCollator(draw, seed=3)([1]), ReseededCollator(draw, seed=4)([1])
    assert all(one != other for one, other in zip(first[:3], second[:3], strict=True))


@pytest.mark.parametrize("seed", [0, 2**32, 2**40 + 1])
def test_large_seeds_are_taken(seed):
    assert ReseededCollator(draw, seed)([]) == ReseededCollator(draw, seed)([])


def test_masks_of_transformers_are_the_same_each_time(tokenizer, examples):
    batch = [{"input_ids": examples[index]["input_ids"]} for index in range(8)]
    given = DataCollatorForLanguageModeling(tokenizer)
    collator = ReseededCollator(given, seed=0)
    assert torch.equal(collator(batch)["labels"], collator(batch)["labels"])
    assert not torch.equal(given(batch)["labels"], given(batch)["labels"])
