import copy
import pickle

import pytest
import torch

from hf_dwt.data import CausalCollator


def test_labels_are_the_token_ids_and_examples_of_one_length_need_no_tokenizer():
    batch = CausalCollator()([{"input_ids": [5, 6], "text": "x"}, {"input_ids": [7, 0]}])
    assert sorted(batch) == ["attention_mask", "input_ids", "labels"]
    assert batch["labels"].tolist() == batch["input_ids"].tolist() == [[5, 6], [7, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1], [1, 1]]
    assert all(tensor.dtype == torch.int64 for tensor in batch.values())


def test_only_padding_is_ignored_where_the_end_token_pads(bpe):
    end = bpe.eos_token_id
    assert end == bpe.pad_token_id
    batch = CausalCollator(bpe)([{"input_ids": [5, end]}, {"input_ids": [5, 6, 7, end]}])
    assert batch["input_ids"].tolist() == [[5, end, end, end], [5, 6, 7, end]]
    assert batch["labels"].tolist() == [[5, end, -100, -100], [5, 6, 7, end]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]


def test_padding_goes_right_whatever_the_tokenizer_prefers(bpe):
    left = copy.deepcopy(bpe)
    left.padding_side = "left"
    batch = CausalCollator(left)([{"input_ids": [5]}, {"input_ids": [5, 6]}])
    assert batch["labels"].tolist() == [[5, -100], [5, 6]]


def test_padding_that_the_examples_bring_is_ignored():
    batch = CausalCollator()([{"input_ids": [5, 0], "attention_mask": [1, 0]}])
    assert batch["labels"].tolist() == [[5, -100]]


def test_labels_share_no_memory_with_the_inputs():
    batch = CausalCollator()([{"input_ids": [5, 6]}])
    batch["labels"][0, 0] = -100
    assert batch["input_ids"].tolist() == [[5, 6]]


def test_different_lengths_without_a_padding_token_are_refused(bpe):
    examples = [{"input_ids": [5]}, {"input_ids": [5, 6]}]
    unpadded = copy.deepcopy(bpe)
    unpadded.pad_token = None
    with pytest.raises(ValueError, match=r"set `tokenizer\.pad_token = tokenizer\.eos_token`"):
        CausalCollator(unpadded)(examples)
    with pytest.raises(ValueError, match="different lengths and no tokenizer was given"):
        CausalCollator()(examples)
    unpadded.pad_token = unpadded.eos_token
    assert CausalCollator(unpadded)(examples)["input_ids"].shape == (2, 2)


def test_examples_with_labels_or_without_token_ids_are_refused():
    with pytest.raises(ValueError, match="The examples already have labels"):
        CausalCollator()([{"input_ids": [5]}, {"input_ids": [5], "labels": [5]}])
    with pytest.raises(ValueError, match="The examples have no `input_ids`"):
        CausalCollator()([{"text": "x"}])


def test_the_collator_is_picklable(bpe):
    collator = pickle.loads(pickle.dumps(CausalCollator(bpe)))
    assert collator([{"input_ids": [5]}])["labels"].tolist() == [[5]]


@pytest.mark.parametrize("key", ["attention_mask", "token_type_ids", "special_tokens_mask"])
def test_a_mask_that_some_examples_of_a_batch_lack_is_refused_by_its_name(key):
    examples = [{"input_ids": [5, 6], key: [1, 0]}, {"input_ids": [5, 6]}, {"input_ids": [5, 6]}]
    for batch in (examples, examples[::-1]):
        with pytest.raises(
            ValueError, match=f"Only 1 of 3 examples have a `{key}`: give it to all of them, or to none"
        ):
            CausalCollator()(batch)
