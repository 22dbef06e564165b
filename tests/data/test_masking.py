import copy
import pickle
import random

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models
from torch.utils.data import DataLoader
from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast

from hf_dwt.data import MaskingCollator
from hf_dwt.data.token_kinds import special_tokens, word_boundaries

# Python 3.12 warns of forks in a process that torch has given threads.
ignore_fork_warning = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded, use of fork:DeprecationWarning"
)


def random_examples(tokenizer, num, length=64, seed=0):
    generator = random.Random(seed)
    ordinary = np.flatnonzero(~special_tokens(tokenizer)).tolist()
    return [
        {
            "input_ids": [
                tokenizer.cls_token_id,
                *generator.choices(ordinary, k=generator.randint(length // 2, length)),
                tokenizer.sep_token_id,
            ]
        }
        for _ in range(num)
    ]


def masks(collator, examples):
    """Inputs and labels of each example, by its own tokens, without padding."""
    batch = collator(examples)
    own = batch["attention_mask"].bool()
    return [
        (ids[mine].tolist(), labels[mine].tolist())
        for ids, labels, mine in zip(batch["input_ids"], batch["labels"], own, strict=True)
    ]


@pytest.fixture(scope="session")
def examples(wordpiece):
    return random_examples(wordpiece, 24)


def test_a_batch_holds_int64_tensors_of_one_shape(wordpiece, examples):
    batch = MaskingCollator(wordpiece)([{**example, "text": "x", "length": 3} for example in examples])
    assert sorted(batch) == ["attention_mask", "input_ids", "labels"]
    longest = max(len(example["input_ids"]) for example in examples)
    for tensor in batch.values():
        assert tensor.dtype == torch.int64
        assert tensor.shape == (24, longest)


def test_token_types_are_padded_and_kept(wordpiece):
    features = [
        {"input_ids": [2, 30, 3], "token_type_ids": [1, 1, 1]},
        {"input_ids": [2, 30, 31, 3], "token_type_ids": [0, 0, 1, 1]},
    ]
    assert MaskingCollator(wordpiece)(features)["token_type_ids"].tolist() == [[1, 1, 1, 0], [0, 0, 1, 1]]


def test_chosen_tokens_follow_the_80_10_10_rule(wordpiece):
    batch = MaskingCollator(wordpiece, seed=1)(random_examples(wordpiece, 2000))
    chosen = batch["labels"] != -100
    ordinary = batch["attention_mask"].sum() - 2 * 2000
    num_chosen = chosen.sum()
    assert num_chosen / ordinary == pytest.approx(0.15, abs=0.005)
    inputs, labels = batch["input_ids"][chosen], batch["labels"][chosen]
    masked = inputs == wordpiece.mask_token_id
    num_ordinary_tokens = int((~special_tokens(wordpiece)).sum())
    stay = (inputs == labels).sum() / num_chosen
    changed = (~masked & (inputs != labels)).sum() / num_chosen
    assert masked.sum() / num_chosen == pytest.approx(0.8, abs=0.015)
    # A random token is the original one once in so many times.
    assert stay == pytest.approx(0.1 + 0.1 / num_ordinary_tokens, abs=0.01)
    assert changed == pytest.approx(0.1 - 0.1 / num_ordinary_tokens, abs=0.01)


def test_random_tokens_cover_the_ordinary_vocabulary_evenly_and_are_never_special(wordpiece):
    batch = MaskingCollator(wordpiece, mask_probability=1.0)(random_examples(wordpiece, 2000))
    replaced = (batch["labels"] != -100) & (batch["input_ids"] != batch["labels"])
    random_ids = batch["input_ids"][replaced & (batch["input_ids"] != wordpiece.mask_token_id)]
    counts = np.bincount(random_ids, minlength=len(wordpiece))
    special = special_tokens(wordpiece)
    assert counts[special].sum() == 0
    assert counts[~special].min() > 0.5 * counts[~special].mean()
    assert counts[~special].max() < 1.5 * counts[~special].mean()


def test_unchosen_tokens_stay_and_special_ones_are_never_chosen(wordpiece, examples):
    for example, (ids, labels) in zip(
        examples, masks(MaskingCollator(wordpiece, mask_probability=1.0), examples), strict=True
    ):
        assert ids[0] == wordpiece.cls_token_id
        assert ids[-1] == wordpiece.sep_token_id
        assert labels == [-100, *example["input_ids"][1:-1], -100]


def test_padding_and_marked_tokens_are_never_chosen(wordpiece):
    features = [
        {"input_ids": [2, 30, 31, 3], "special_tokens_mask": [1, 1, 0, 1], "attention_mask": [1, 1, 1, 1]},
        {"input_ids": [2, 30, 3, 31], "special_tokens_mask": [1, 0, 1, 0], "attention_mask": [1, 1, 1, 0]},
    ]
    batch = MaskingCollator(wordpiece, mask_probability=1.0)(features)
    assert batch["labels"].tolist() == [[-100, -100, 31, -100], [-100, 30, -100, -100]]


def test_every_example_with_an_ordinary_token_has_a_prediction(wordpiece, examples):
    batch = MaskingCollator(wordpiece, mask_probability=1e-9)(examples)
    assert ((batch["labels"] != -100).sum(dim=1) == 1).all()


def test_an_example_without_an_ordinary_token_has_no_prediction(wordpiece):
    batch = MaskingCollator(wordpiece)([{"input_ids": [2, 1, 3]}, {"input_ids": []}])
    assert (batch["labels"] == -100).all()


def test_masks_do_not_depend_on_the_batch_or_on_order(wordpiece, examples):
    collator = MaskingCollator(wordpiece)
    together = masks(collator, examples)
    assert [masks(collator, [example])[0] for example in examples] == together
    assert masks(collator, examples[::-1])[::-1] == together


def test_masks_of_a_collator_on_the_global_generator_do_depend_on_the_batch(wordpiece, examples):
    collator = DataCollatorForLanguageModeling(wordpiece)
    assert [masks(collator, [example])[0] for example in examples] != masks(collator, examples)


def test_masks_do_not_depend_on_padding(wordpiece, examples):
    left = copy.deepcopy(wordpiece)
    left.padding_side = "left"
    padded = [
        {
            "input_ids": example["input_ids"] + [wordpiece.pad_token_id] * 3,
            "attention_mask": [1] * len(example["input_ids"]) + [0] * 3,
        }
        for example in examples
    ]
    expected = masks(MaskingCollator(wordpiece), examples)
    assert masks(MaskingCollator(left), examples) == expected
    assert masks(MaskingCollator(wordpiece), padded) == expected


def test_masks_do_not_depend_on_the_container_or_a_special_tokens_mask(wordpiece, examples):
    collator = MaskingCollator(wordpiece)
    tensors = [{"input_ids": torch.tensor(example["input_ids"])} for example in examples]
    marked = [
        {**example, "special_tokens_mask": [1, *[0] * (len(example["input_ids"]) - 2), 1]} for example in examples
    ]
    assert masks(collator, tensors) == masks(collator, examples) == masks(collator, marked)


def test_masks_differ_between_seeds_epochs_and_examples(wordpiece, examples):
    collator = MaskingCollator(wordpiece)
    first = masks(collator, examples)
    assert masks(MaskingCollator(wordpiece, seed=1), examples) != first
    collator.set_epoch(1)
    assert masks(collator, examples) != first
    collator.set_epoch(0)
    assert masks(collator, examples) == first
    other = [{"input_ids": [*examples[0]["input_ids"][:-1], 40, 3]}]
    assert masks(collator, other)[0][1][:-2] != first[0][1][:-1]


def test_masks_are_those_of_earlier_releases(wordpiece):
    ids = [2, *range(20, 60), 3]
    labels = MaskingCollator(wordpiece, seed=7)([{"input_ids": ids}])["labels"][0]
    assert labels[labels != -100].tolist() == [21, 30, 34, 40, 52]


def test_evaluation_masks_do_not_follow_the_epoch(wordpiece, examples):
    collator = MaskingCollator(wordpiece)
    evaluation = collator.for_evaluation()
    expected = masks(evaluation, examples)
    assert expected != masks(collator, examples)
    collator.set_epoch(5)
    assert masks(evaluation, examples) == expected
    assert masks(collator.for_evaluation(), examples) == expected
    with pytest.raises(ValueError, match="Masks for evaluation are the same in every epoch"):
        evaluation.set_epoch(1)


def test_global_random_states_are_untouched(wordpiece, examples):
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    masks(MaskingCollator(wordpiece), examples)
    after = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_a_pickled_collator_makes_the_same_masks(wordpiece, examples):
    collator = MaskingCollator(wordpiece, whole_word=True, seed=3)
    collator.set_epoch(2)
    assert masks(pickle.loads(pickle.dumps(collator)), examples) == masks(collator, examples)


@ignore_fork_warning
@pytest.mark.parametrize(("num_workers", "context"), [(2, "fork"), (1, "spawn")])
def test_persistent_workers_see_the_epoch_and_make_the_same_masks(wordpiece, examples, num_workers, context):
    collator = MaskingCollator(wordpiece)
    loader = DataLoader(
        examples,
        batch_size=8,
        collate_fn=collator,
        num_workers=num_workers,
        persistent_workers=True,
        multiprocessing_context=context,
    )
    labels = []
    for epoch in range(2):
        collator.set_epoch(epoch)
        batches = list(loader)
        expected = [collator(examples[start : start + 8]) for start in range(0, 24, 8)]
        for batch, own in zip(batches, expected, strict=True):
            assert torch.equal(batch["input_ids"], own["input_ids"])
            assert torch.equal(batch["labels"], own["labels"])
        labels.append(batches[0]["labels"])
    assert not torch.equal(*labels)


def words_of(tokenizer, ids):
    """Positions of each word's pieces, by the WordPiece prefix."""
    words = []
    for position, token in enumerate(tokenizer.convert_ids_to_tokens(ids)):
        if token.startswith("##") and words:
            words[-1].append(position)
        else:
            words.append([position])
    return words


def test_whole_words_are_chosen_together_and_pieces_are_not_otherwise(wordpiece, sentences):
    features = [{"input_ids": wordpiece(sentence)["input_ids"]} for sentence in sentences]

    def num_split_words(collator):
        num_split = 0
        for epoch in range(10):
            collator.set_epoch(epoch)
            for feature, (_, labels) in zip(features, masks(collator, features), strict=True):
                for word in words_of(wordpiece, feature["input_ids"]):
                    num_split += len({labels[position] == -100 for position in word}) > 1
        return num_split

    assert num_split_words(MaskingCollator(wordpiece, whole_word=True)) == 0
    assert num_split_words(MaskingCollator(wordpiece)) > 0


def test_whole_word_masking_chooses_the_share_of_words(wordpiece, sentences):
    collator = MaskingCollator(wordpiece, mask_probability=0.3, whole_word=True)
    features = [{"input_ids": wordpiece(sentence)["input_ids"]} for sentence in sentences]
    chosen = []
    for epoch in range(100):
        collator.set_epoch(epoch)
        for feature, (_, labels) in zip(features, masks(collator, features), strict=True):
            chosen += [labels[word[0]] != -100 for word in words_of(wordpiece, feature["input_ids"])[1:-1]]
    assert np.mean(chosen) == pytest.approx(0.3, abs=0.03)


def test_one_word_at_least_is_chosen_whole(wordpiece):
    ids = wordpiece("unteachable")["input_ids"]
    assert len(ids) > 3
    labels = MaskingCollator(wordpiece, mask_probability=1e-9, whole_word=True)([{"input_ids": ids}])["labels"]
    assert labels[0].tolist() == [-100, *ids[1:-1], -100]


def test_whole_words_of_a_byte_level_vocabulary_begin_with_a_space(masking_bpe):
    ids = masking_bpe("unteachable foxily\nbrownish")["input_ids"]
    tokens = masking_bpe.convert_ids_to_tokens(ids)
    assert len(ids) > 5
    second, newline = (next(i for i, token in enumerate(tokens) if token[0] == mark) for mark in "ĠĊ")
    words = [ids[:second], ids[second:newline], ids[newline : newline + 1], ids[newline + 1 :]]
    collator = MaskingCollator(masking_bpe, mask_probability=1e-9, whole_word=True)
    chosen = set()
    for epoch in range(30):
        collator.set_epoch(epoch)
        labels = collator([{"input_ids": ids}])["labels"][0]
        chosen.add(tuple(labels[labels != -100].tolist()))
    assert chosen == {tuple(word) for word in words}


def word_level(decoder, tokens=("hello", "▁hello", "▁")):
    vocabulary = {token: index for index, token in enumerate(("[MASK]", "[UNK]", *tokens))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.decoder = decoder
    return PreTrainedTokenizerFast(tokenizer_object=backend, mask_token="[MASK]", unk_token="[UNK]")


def test_words_of_a_metaspace_vocabulary_begin_with_its_mark():
    starts, ends = word_boundaries(word_level(decoders.Metaspace()))
    assert starts.tolist() == [True, True, False, True, True]
    assert ends.tolist() == [True, True, False, False, False]


def test_whole_words_of_an_unmarked_vocabulary_are_refused():
    MaskingCollator(word_level(decoders.Fuse()))
    with pytest.raises(ValueError, match="`whole_word=True` needs a tokenizer that marks words"):
        MaskingCollator(word_level(decoders.Fuse()), whole_word=True)


def test_a_tokenizer_without_a_mask_token_is_refused(bpe):
    with pytest.raises(ValueError, match=r"no mask token: use a masked LM's tokenizer"):
        MaskingCollator(bpe)


@pytest.mark.parametrize("mask_probability", [0, -0.1, 1.1, float("nan")])
def test_a_mask_probability_out_of_range_is_refused(wordpiece, mask_probability):
    with pytest.raises(ValueError, match="`mask_probability` must be above 0 and at most 1"):
        MaskingCollator(wordpiece, mask_probability)


def test_a_seed_that_is_no_count_is_refused(wordpiece):
    with pytest.raises(ValueError, match="`seed` must be at least 0, not -1"):
        MaskingCollator(wordpiece, seed=-1)
    with pytest.raises(TypeError, match=r"`seed` must be an integer, not 0\.5"):
        MaskingCollator(wordpiece, seed=0.5)


@pytest.mark.parametrize("epoch", [-1, 0.5])
def test_an_epoch_that_is_no_count_is_refused(wordpiece, epoch):
    with pytest.raises(ValueError, match="`epoch` must be an integer of at least 0"):
        MaskingCollator(wordpiece).set_epoch(epoch)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([{"text": "x"}], "The examples have no `input_ids`, only"),
        ([{"input_ids": [2, 3], "labels": [2, 3]}], "The examples already have labels"),
        ([{"input_ids": [2, 3], "attention_mask": [1]}], "must have the same length in every example"),
        ([{"input_ids": [2, 9999]}], "The examples have token ids from 2 to 9999, the tokenizer only 0 to"),
        ([], "The batch is empty"),
    ],
)
def test_examples_that_cannot_be_masked_are_refused(wordpiece, features, message):
    with pytest.raises(ValueError, match=message):
        MaskingCollator(wordpiece)(features)
