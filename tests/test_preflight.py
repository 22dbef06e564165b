import math
import random
from collections import Counter

import datasets
import numpy as np
import pytest
import torch
from torch import Tensor

from hf_dwt.data import CausalCollator, MaskingCollator
from hf_dwt.heads import whole_head
from hf_dwt.positions import causal_positions, masked_positions, positions_of
from hf_dwt.preflight import first_batches, first_impression, original_tokens
from hf_dwt.sampling import sampled_batches


def asks_for_all(inputs):
    return masked_positions(inputs["labels"])


def collate(examples: list[list[int]]) -> dict[str, Tensor]:
    return {"input_ids": torch.tensor(examples), "labels": torch.tensor(examples)}


def seen(batches: list[dict[str, Tensor]]) -> list[list[int]]:
    return [row for batch in batches for row in batch["input_ids"].tolist()]


@pytest.mark.parametrize("labels", [{}, {"labels": None}], ids=["no key", "none"])
def test_a_batch_without_labels_is_refused_and_what_it_holds_is_told(labels):
    def without(examples):
        return {"input_ids": torch.tensor(examples), "attention_mask": torch.ones(1, 2)} | labels

    with pytest.raises(
        ValueError, match=r"has no `labels`, only 'input_ids', 'attention_mask'.* Leave `data_collator` out"
    ):
        first_batches(sampled_batches([[1, 2]], without, 8), asks_for_all)


@pytest.mark.parametrize("name", ["labels", "shift_labels"])
def test_labels_that_are_not_one_for_each_token_are_refused_with_both_shapes(name):
    def with_classes(examples):
        return {"input_ids": torch.tensor(examples), name: torch.tensor([1] * len(examples))}

    text = rf"`{name}` of a batch of `train_dataset` have the shape \(2,\), its `input_ids` \(2, 2\)"
    with pytest.raises(ValueError, match=text):
        first_batches(sampled_batches([[1, 2], [3, 4]], with_classes, 8), asks_for_all)


def test_batches_are_collated_until_they_hold_a_thousand_positions():
    batches = first_batches(sampled_batches([[index] * 10 for index in range(500)], collate, 8), asks_for_all)
    assert len(batches) == 13
    assert {len(batch["input_ids"]) for batch in batches} == {8}


def test_small_data_are_seen_whole_and_once():
    data = [[index] * 10 for index in range(21)]
    batches = first_batches(sampled_batches(data, collate, 8), asks_for_all)
    assert [len(batch["input_ids"]) for batch in batches] == [8, 8, 5]
    assert sorted(seen(batches)) == data


def test_sized_data_are_sampled_the_same_way_each_time():
    data = [[index] * 10 for index in range(5000)]
    rows = seen(first_batches(sampled_batches(data, collate, 8), asks_for_all))
    assert rows == seen(first_batches(sampled_batches(data, collate, 8), asks_for_all))
    positions = sorted(row[0] for row in rows)
    assert positions[0] < 500
    assert positions[-1] > 4500, "ordered data are not judged by their start"


def test_streams_are_read_from_their_start_and_no_further_than_needed():
    taken = []

    def stream():
        for index in range(10**9):
            taken.append(index)
            yield [index] * 100

    assert seen(first_batches(sampled_batches(stream(), collate, 4), asks_for_all)) == [
        [index] * 100 for index in range(12)
    ]
    assert len(taken) == 12


def test_a_stream_that_asks_for_nothing_is_given_up():
    stream = ([-100] for _ in range(10**9))
    with pytest.raises(ValueError, match="asks for no prediction: in 10 batches every label is -100"):
        first_batches(sampled_batches(stream, collate, 1000), asks_for_all)


@pytest.mark.parametrize("data", [[], iter([])], ids=["sized", "stream"])
def test_empty_data_are_refused(data):
    with pytest.raises(ValueError, match="`train_dataset` is empty"):
        first_batches(sampled_batches(data, collate, 4), asks_for_all)


def test_data_that_ask_for_nothing_are_refused():
    with pytest.raises(ValueError, match="`train_dataset` asks for no prediction: in 2 batches every label is -100"):
        first_batches(sampled_batches([[-100, -100]] * 8, collate, 4), asks_for_all)
    assert first_batches(sampled_batches([[-100, -100]] * 7 + [[-100, 3]], collate, 4), asks_for_all)


def test_no_global_generator_is_touched(examples, tokenizer):
    def states():
        return repr((random.getstate(), np.random.get_state(), torch.get_rng_state().tolist()))

    before = states()
    collator = MaskingCollator(tokenizer)
    batches = first_batches(sampled_batches(examples, collator, 8), asks_for_all)
    first_impression(
        batches, asks_for_all, lambda inputs, positions: whole_head(torch.zeros(len(positions), len(tokenizer)))
    )
    assert states() == before


def test_loss_of_guessing_by_frequency_is_add_one_over_all_tokens():
    batch = {
        "input_ids": torch.tensor([[1, 3, 2], [1, 1, 0]]),
        "labels": torch.tensor([[-100, 2, -100], [-100, 1, -100]]),
        "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]]),
    }
    # Under the masks the text is 1 2 2 and 1 1; the last token is padding.
    counts = Counter([1, 2, 2, 1, 1])
    probabilities = {token: (counts[token] + 1) / (5 + 4) for token in range(4)}
    teacher = torch.tensor([[0.0, 0.0, 2.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    impression = first_impression([batch], asks_for_all, lambda inputs, positions: whole_head(teacher))
    assert impression.num_positions == 2
    assert impression.unigram_loss == pytest.approx(-(math.log(probabilities[2]) + math.log(probabilities[1])) / 2)
    at_2 = math.log(3 + math.exp(2)) - 2
    at_1 = math.log(3 + math.exp(1))
    assert impression.teacher_loss == pytest.approx((at_2 + at_1) / 2)


def test_a_mask_that_is_not_one_for_each_token_does_not_select_tokens():
    tokens = torch.tensor([[1, 2, 3], [4, 5, 6]])
    for mask in (torch.ones(2, 1, 3, 3), torch.ones(3, 3).tril().expand(2, 3, 3)):
        assert original_tokens({"input_ids": tokens, "attention_mask": mask}).tolist() == [1, 2, 3, 4, 5, 6]
    padded = {"input_ids": tokens, "attention_mask": torch.tensor([[1, 1, 0], [1, 1, 1]])}
    assert original_tokens(padded).tolist() == [1, 2, 4, 5, 6]


def test_means_are_over_the_positions_of_all_batches():
    batches = [collate([[0, 1]]), collate([[1, 1], [1, 1]])]
    impression = first_impression(
        batches, asks_for_all, lambda inputs, positions: whole_head(torch.zeros(len(positions), 2))
    )
    counts = {0: 2, 1: 6}
    expected = -(math.log(counts[0] / 8) + 5 * math.log(counts[1] / 8)) / 6
    assert impression.unigram_loss == pytest.approx(expected)
    assert impression.teacher_loss == pytest.approx(math.log(2))
    assert impression.num_positions == 6


def test_tokens_that_the_teacher_lacks_do_not_count():
    known, with_unknown = collate([[0, 1, 1]]), collate([[0, 1, 1, 5, 9]])
    impressions = [
        first_impression([batch], asks_for_all, lambda inputs, positions: whole_head(torch.zeros(len(positions), 2)))
        for batch in (known, with_unknown)
    ]
    assert impressions[0] == impressions[1]


def test_causal_examples_count_every_token_but_predict_only_the_next():
    batch = CausalCollator()([{"input_ids": [0, 1, 1]}])
    impression = first_impression(
        [batch],
        lambda inputs: causal_positions(inputs["labels"]),
        lambda inputs, positions: whole_head(torch.zeros(len(positions), 2)),
    )
    assert impression.num_positions == 2
    assert impression.unigram_loss == pytest.approx(-math.log(3 / 5))


def test_labels_that_are_shifted_already_are_enough():
    batch = {"input_ids": torch.tensor([[0, 1, 1]]), "shift_labels": torch.tensor([[1, 1, -100]])}
    impression = first_impression(
        [batch],
        lambda inputs: positions_of("causal", inputs),
        lambda inputs, positions: whole_head(torch.zeros(len(positions), 2)),
    )
    assert impression.unigram_loss == pytest.approx(-math.log(3 / 5))


def test_a_streamed_data_set_works_like_any_stream(examples, tokenizer):
    stream = examples.to_iterable_dataset()
    assert isinstance(stream, datasets.IterableDataset)
    batches = first_batches(sampled_batches(stream, CausalCollator(tokenizer), 8), asks_for_all)
    assert batches[0]["input_ids"][0].tolist()[: len(examples[0]["input_ids"])] == examples[0]["input_ids"]
