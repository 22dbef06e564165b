import subprocess
import sys

import pytest
from transformers import AutoTokenizer

from hf_dwt.data import train_tokenizer


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_a_saved_tokenizer_comes_back_the_same(tmp_path, sentences, kind):
    tokenizer = train_tokenizer(sentences, 300, kind=kind, extra_special_tokens=["<user>"], model_max_length=64)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    texts = [*sentences, "An unseen Ünïcode <user> text 42 ☃"]
    assert loaded(texts)["input_ids"] == tokenizer(texts)["input_ids"]
    assert loaded.model_max_length == 64
    assert loaded.special_tokens_map == tokenizer.special_tokens_map
    assert loaded.all_special_ids == tokenizer.all_special_ids
    assert loaded.decode(loaded(texts[0])["input_ids"]) == tokenizer.decode(tokenizer(texts[0])["input_ids"])


def test_wordpiece_frames_texts_as_bert_does(wordpiece, sentences):
    assert wordpiece.convert_ids_to_tokens(range(5)) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    ids = wordpiece("The fox")["input_ids"]
    assert (ids[0], ids[-1]) == (2, 3)
    assert wordpiece(sentences[0])["input_ids"] == wordpiece(sentences[0].upper())["input_ids"]
    assert wordpiece.decode(ids, skip_special_tokens=True) == "the fox"
    assert wordpiece.unk_token_id in wordpiece("☃")["input_ids"]
    assert len(wordpiece("x" * 2000)["input_ids"]) < 2005


def test_bpe_reads_any_text_back_exactly(bpe):
    text = "  Unseen Ünïcode,\n\ttabs and ☃ "
    assert bpe.decode(bpe(text)["input_ids"]) == text
    assert bpe.bos_token_id == bpe.eos_token_id == bpe.unk_token_id == bpe.pad_token_id == 0


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_lowercase_is_a_choice(sentences, kind):
    cased = train_tokenizer(sentences, 400, kind=kind, lowercase=False)
    lower = train_tokenizer(sentences, 400, kind=kind, lowercase=True)
    assert cased.tokenize("Teacher") != cased.tokenize("teacher")
    assert lower.tokenize("Teacher") == lower.tokenize("teacher")


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_the_vocabulary_is_never_larger_than_asked_for(sentences, kind):
    tokenizer = train_tokenizer(sentences, 350, kind=kind, min_frequency=1)
    assert len(tokenizer) <= 350
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))
    assert len(train_tokenizer(sentences, 350, kind=kind, min_frequency=3)) < len(tokenizer)


def test_the_same_texts_give_the_same_tokenizer_in_every_process(sentences):
    program = (
        "import sys; from hf_dwt.data import train_tokenizer;"
        "print(train_tokenizer(sys.argv[1:], 90).backend_tokenizer.to_str())"
    )
    other = subprocess.run(
        [sys.executable, "-c", program, *sentences], check=True, capture_output=True, text=True
    ).stdout
    assert other.strip() == train_tokenizer(sentences, 90).backend_tokenizer.to_str()
    assert other.strip() == train_tokenizer(iter(sentences), 90).backend_tokenizer.to_str()
    assert other.strip() != train_tokenizer(sentences, 89).backend_tokenizer.to_str()


def test_a_vocabulary_too_small_for_the_characters_is_refused(sentences):
    with pytest.raises(ValueError, match=r"`vocab_size` is 20, too small .* take at least (\d+)") as error:
        train_tokenizer(sentences, 20)
    smallest = int(str(error.value).split()[-1].rstrip("."))
    assert len(train_tokenizer(sentences, smallest)) == smallest
    with pytest.raises(ValueError, match="256 bytes of the texts: take at least 257"):
        train_tokenizer(sentences, 256, kind="bpe")


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_what_is_not_texts_is_refused(kind):
    with pytest.raises(TypeError, match="not one string: pass"):
        train_tokenizer("one text", 300, kind=kind)
    with pytest.raises(TypeError, match="`texts` must hold strings, not int"):
        train_tokenizer([1], 300, kind=kind)
    for nothing in ([], iter([]), ["", " "]):
        with pytest.raises(ValueError, match="`texts` is empty"):
            train_tokenizer(nothing, 300, kind=kind)


def test_an_unknown_kind_is_refused(sentences):
    with pytest.raises(ValueError, match='`kind` must be "wordpiece" or "bpe", not \'unigram\''):
        train_tokenizer(sentences, 300, kind="unigram")
