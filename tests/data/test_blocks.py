import copy
from itertools import chain

import pytest
from datasets import Dataset, IterableDataset
from tokenizers.processors import TemplateProcessing

from hf_dwt.data import to_blocks, to_sentences, train_tokenizer

ignore_fork_warning = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded, use of fork:DeprecationWarning"
)


def contents(tokenizer, sentences):
    return [tokenizer(sentence, add_special_tokens=False)["input_ids"] for sentence in sentences]


@pytest.mark.parametrize("block_size", [8, 9, 16])
def test_each_block_is_framed_and_documents_are_separated(wordpiece, text, sentences, block_size):
    blocks = to_blocks(text, wordpiece, block_size)
    begin, end = wordpiece.cls_token_id, wordpiece.sep_token_id
    joined = []
    for row in blocks:
        assert len(row["input_ids"]) == block_size
        assert row["input_ids"][0] == begin
        assert row["input_ids"][-1] == end
        assert row["attention_mask"] == [1] * block_size
        assert row["special_tokens_mask"] == [int(token in (begin, end)) for token in row["input_ids"]]
        joined += row["input_ids"][1:-1]
    stream = []
    for ids in contents(wordpiece, sentences):
        stream += [*ids, end]
    assert joined == stream[:-1][: len(joined)]
    assert len(stream) - 1 - len(joined) < block_size - 2


def test_documents_end_with_the_end_token_where_no_frame_is_added(bpe, text, sentences):
    blocks = to_blocks(text, bpe, 8)
    assert blocks.column_names == ["input_ids", "attention_mask"]
    stream = [token for ids in contents(bpe, sentences) for token in (*ids, bpe.eos_token_id)]
    joined = list(chain(*blocks["input_ids"]))
    assert joined == stream[: len(joined)]
    assert len(stream) - len(joined) < 8


def test_a_tokenizer_that_only_begins_texts_begins_each_block(bpe, text):
    beginning = copy.deepcopy(bpe)
    beginning.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    blocks = to_blocks(text, beginning, 8, keep_remainder=True)["input_ids"][:]
    assert all(block[0] == 0 for block in blocks)
    unframed = to_blocks(text, bpe, 8, keep_remainder=True)["input_ids"]
    assert list(chain(*(block[1:] for block in blocks))) == list(chain(*unframed))


def test_the_remainder_is_kept_when_asked_for(wordpiece, text):
    dropped = to_blocks(text, wordpiece, 16)["input_ids"][:]
    kept = to_blocks(text, wordpiece, 16, keep_remainder=True)["input_ids"][:]
    assert kept[:-1] == dropped
    assert 2 < len(kept[-1]) < 16
    assert kept[-1][0] == wordpiece.cls_token_id
    assert kept[-1][-1] == wordpiece.sep_token_id


def test_special_tokens_written_in_a_text_stay_inside_its_frame(wordpiece):
    rows = Dataset.from_dict({"text": ["[SEP] the fox [CLS]"]})
    ids = wordpiece("[SEP] the fox [CLS]")["input_ids"]
    assert to_sentences(rows, wordpiece, 16)["input_ids"][0] == ids


def test_streams_give_the_same_rows_lazily(wordpiece, text):
    def endless():
        while True:
            yield {"text": text["text"][0]}

    first = next(iter(to_blocks(IterableDataset.from_generator(endless), wordpiece, 8)))
    assert len(first["input_ids"]) == 8
    for convert in (to_blocks, to_sentences):
        assert list(convert(text.to_iterable_dataset(), wordpiece, 16)) == list(convert(text, wordpiece, 16))


@ignore_fork_warning
def test_processes_share_the_documents(wordpiece, text):
    alone = to_sentences(text, wordpiece, 16)
    shared = to_sentences(text, wordpiece, 16, num_proc=2)
    assert shared.to_dict() == alone.to_dict()


def test_the_same_call_is_found_in_the_cache(wordpiece, text):
    for convert in (to_blocks, to_sentences):
        first, again = (convert(text, wordpiece, 16) for _ in range(2))
        assert first._fingerprint == again._fingerprint
        assert first._fingerprint != convert(text, wordpiece, 8)._fingerprint


def test_a_row_becomes_an_example_as_the_tokenizer_makes_it(wordpiece, bpe, text, sentences):
    for tokenizer in (wordpiece, bpe):
        rows = to_sentences(text, tokenizer, 12)
        expected = [tokenizer(sentence, truncation=True, max_length=12) for sentence in sentences]
        assert rows["input_ids"][:] == [encoding["input_ids"] for encoding in expected]
        assert rows["attention_mask"][:] == [encoding["attention_mask"] for encoding in expected]
        assert rows["length"][:] == [len(encoding["input_ids"]) for encoding in expected]
        assert ("special_tokens_mask" in rows.column_names) == (tokenizer is wordpiece)


def test_rows_without_a_token_are_dropped(wordpiece):
    rows = Dataset.from_dict({"text": ["", " ", None, "the fox", "\n"]})
    assert len(to_sentences(rows, wordpiece, 16)) == 1


def test_lengths_out_of_range_are_refused(text, sentences):
    tokenizer = train_tokenizer(sentences, 90, model_max_length=32)
    with pytest.raises(ValueError, match="`block_size` must be at least 8 tokens, not 7"):
        to_blocks(text, tokenizer, 7)
    with pytest.raises(ValueError, match="`block_size` is 33, but the tokenizer's model reads at most 32"):
        to_blocks(text, tokenizer, 33)
    with pytest.raises(ValueError, match="`max_length` is 33"):
        to_sentences(text, tokenizer, 33)
    assert len(to_blocks(text, tokenizer, 32)["input_ids"][0]) == 32


def test_too_little_text_is_refused(wordpiece):
    rows = Dataset.from_dict({"text": ["fox", ""]})
    with pytest.raises(ValueError, match="too little text for one block of 64 tokens"):
        to_blocks(rows, wordpiece, 64)
    with pytest.raises(ValueError, match="No row of the column 'text' holds any text"):
        to_sentences(Dataset.from_dict({"text": ["", " "]}), wordpiece, 64)


def test_a_missing_column_is_named_with_those_there_are(wordpiece, text):
    with pytest.raises(ValueError, match="There is no column 'body', only 'text', 'source'"):
        to_blocks(text, wordpiece, 16, text_column="body")
