import pytest
from datasets import Dataset

from hf_dwt.data import train_tokenizer

SENTENCES = [
    "The quick brown fox jumps over the lazy dog.",
    "A weak teacher can still teach a strong student something useful!",
    "Is a larger model always better than the smaller one it learnt from?",
    "Teachers teaching teachers learn unteachable things, quickly and brownly.",
    "Some foxes jumped; others were jumping over lazier dogs.",
]


@pytest.fixture(scope="session")
def sentences():
    return SENTENCES


@pytest.fixture(scope="session")
def text():
    return Dataset.from_dict({"text": SENTENCES, "source": list("abcde")})


@pytest.fixture(scope="session")
def wordpiece():
    return train_tokenizer(SENTENCES, vocab_size=90)


@pytest.fixture(scope="session")
def bpe():
    return train_tokenizer(SENTENCES, vocab_size=300, kind="bpe")


@pytest.fixture(scope="session")
def masking_bpe():
    tokenizer = train_tokenizer(SENTENCES, vocab_size=300, kind="bpe", extra_special_tokens=["<mask>"])
    tokenizer.mask_token = "<mask>"
    return tokenizer
