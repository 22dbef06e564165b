import pytest
from datasets import Dataset, DatasetDict

from hf_dwt.data import split_sentences, take_every
from hf_dwt.data.text import sentences_of


@pytest.fixture
def letters():
    return Dataset.from_dict({"text": list("abcdefg")})


@pytest.mark.parametrize(("every", "offset", "expected"), [(1, 0, "abcdefg"), (3, 0, "adg"), (3, 2, "cf"), (9, 6, "g")])
def test_every_nth_row_is_taken_of_data_sets_and_streams(letters, every, offset, expected):
    assert take_every(letters, every, offset)["text"][:] == list(expected)
    stream = take_every(letters.to_iterable_dataset(), every, offset)
    assert [row["text"] for row in stream] == list(expected)


def test_samples_with_different_offsets_share_no_row(letters):
    samples = [take_every(letters, 3, offset)["text"][:] for offset in range(3)]
    assert sorted("".join(map("".join, samples))) == list("abcdefg")


def test_impossible_samples_are_refused(letters):
    with pytest.raises(ValueError, match="`every` must be at least 1, not 0"):
        take_every(letters, 0)
    with pytest.raises(ValueError, match="`offset` must be from 0 to `every` - 1 = 2, not 3"):
        take_every(letters, 3, 3)
    with pytest.raises(ValueError, match="`offset` is 8, but the data set has only 7 rows"):
        take_every(letters, 10, 8)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It rains. It pours!  Why?", ["It rains.", "It pours!", "Why?"]),
        ('He said: "Go." "Why?" she asked.', ['He said: "Go."', '"Why?" she asked.']),
        (
            "Version 2.5 is out, e.g. here. 3 more follow.",
            ["Version 2.5 is out, e.g. here.", "3 more follow."],
        ),
        ("A heading\n\nand a\nwrapped line", ["A heading", "and a wrapped line"]),
        ("Élan. Étude… Ärger.", ["Élan.", "Étude…", "Ärger."]),
        ("Mr. Smith", ["Mr.", "Smith"]),
        ("no end", ["no end"]),
        (" \n\n \n", []),
        ("", []),
    ],
)
def test_sentences_end_as_documented(text, expected):
    assert list(sentences_of(text)) == expected


def test_documents_become_one_sentence_per_row(letters):
    documents = Dataset.from_dict({"body": ["One. Two.", None, "", "Three."], "year": [1, 2, 3, 4]})
    expected = {"body": ["One.", "Two.", "Three."]}
    assert split_sentences(documents, "body").to_dict() == expected
    stream = split_sentences(documents.to_iterable_dataset(), "body")
    assert list(stream) == [{"body": sentence} for sentence in expected["body"]]


def test_a_missing_column_is_named_with_those_there_are(letters):
    for dataset in (letters, letters.to_iterable_dataset()):
        with pytest.raises(ValueError, match="There is no column 'body', only 'text': set `text_column`"):
            split_sentences(dataset, "body")


def test_several_splits_at_once_are_refused(letters):
    with pytest.raises(TypeError, match="`dataset` must be one split"):
        split_sentences(DatasetDict({"train": letters}))


def test_processes_are_refused_for_a_stream(letters):
    with pytest.raises(ValueError, match="`num_proc` is for map-style data sets"):
        split_sentences(letters.to_iterable_dataset(), num_proc=2)
