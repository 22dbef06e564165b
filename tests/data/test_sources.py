from pathlib import Path

import datasets
import pytest
from datasets import Dataset, IterableDataset
from datasets.exceptions import DatasetGenerationError

from hf_dwt.data import load_text, sources


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "b.txt").write_text("third\n")
    (tmp_path / "a.txt").write_text("first\nsecond\n")
    (tmp_path / "README.md").write_text("not text for a model")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "c.txt").write_text("hidden\n")
    return tmp_path


def test_a_folder_a_pattern_a_list_and_a_file_are_read_in_sorted_order(folder):
    rows = ["first", "second", "third"]
    assert load_text(folder)["text"][:] == rows
    assert load_text(str(folder))["text"][:] == rows
    assert load_text(f"{folder}/*.txt")["text"][:] == rows
    assert load_text([folder / "b.txt", str(folder / "a.txt")])["text"][:] == rows
    assert load_text(folder / "b.txt")["text"][:] == ["third"]


def test_a_pattern_may_begin_at_home(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    assert load_text("~/b*.txt")["text"][:] == ["third"]


@pytest.mark.parametrize("name", ["data[1].txt", "what?.txt", "a*.txt"])
@pytest.mark.parametrize("streaming", [False, True])
def test_a_file_that_is_there_is_no_pattern_whatever_its_name(folder, name, streaming):
    path = folder / name
    path.write_text("own\n")
    (folder / "data1.txt").write_text("other\n")
    for source in (path, str(path), [path]):
        assert [row["text"] for row in load_text(source, streaming=streaming)] == ["own"]


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.txt", "one\ntwo\n"), ("a.csv", "text\none\ntwo\n"), ("a.jsonl", '{"text": "one"}\n{"text": "two"}\n')],
)
def test_the_mark_of_utf8_is_no_part_of_the_first_row(tmp_path, name, content):
    (tmp_path / name).write_text(content, encoding="utf-8-sig")
    assert load_text(tmp_path / name).to_dict() == {"text": ["one", "two"]}


def test_streams_are_read_lazily(folder):
    stream = load_text(folder, streaming=True)
    assert isinstance(stream, IterableDataset)
    assert [row["text"] for row in stream] == ["first", "second", "third"]


@pytest.mark.parametrize("extension", ["json", "jsonl", "parquet", "csv"])
def test_structured_files_keep_their_columns(tmp_path, extension):
    path = str(tmp_path / f"rows.{extension}")
    rows = Dataset.from_dict({"text": ["one", "two"], "year": [1790, 1791]})
    getattr(rows, {"jsonl": "to_json"}.get(extension, f"to_{extension}"))(path)
    assert load_text(path).to_dict() == rows.to_dict()


def test_a_hub_id_goes_to_the_hub_with_its_options(monkeypatch):
    calls = []

    def load_dataset(*args, **kwargs):
        calls.append((args, kwargs))
        return ["row"]

    monkeypatch.setattr(sources, "load_dataset", load_dataset)
    load_text("user/corpus", split="test", revision="v1", token="secret", name="en")
    load_text("wikitext")
    options = {"split": "test", "streaming": False, "revision": "v1", "token": "secret"}
    assert calls[0] == (("user/corpus", "en"), options)
    assert calls[1][0] == ("wikitext", None)


@pytest.mark.parametrize("source", ["no/such.txt", "/no/such", "./such", "~/no_such_folder", "a/b/c"])
def test_a_missing_path_is_not_taken_for_a_hub_id(source):
    with pytest.raises(FileNotFoundError, match="There is no file or folder"):
        load_text(source)


def test_a_missing_path_object_pattern_or_list_item_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file or folder 'corpus'"):
        load_text(Path("corpus"))
    with pytest.raises(FileNotFoundError, match="No file matches the pattern"):
        load_text(f"{tmp_path}/*.txt")
    with pytest.raises(FileNotFoundError, match=r"missing\.txt"):
        load_text([tmp_path / "missing.txt"])


def test_mixed_and_unknown_kinds_of_files_are_refused(folder):
    with pytest.raises(ValueError, match=r"Cannot read files with the extension '\.md'"):
        load_text(folder / "README.md")
    (folder / "rows.csv").write_text("text\nx\n")
    with pytest.raises(ValueError, match=r"several kinds \(\.csv, \.txt\)"):
        load_text(folder)


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("b.txt", "first\nsecond café\n", "byte 11 of line 2 is 0xe9"),
        ("b.txt", "first\nlast caf\u00c3", "byte 9 of line 2 is 0xc3"),
        ("b.csv", "text\nfirst\ncafé\n", "byte 4 of line 3 is 0xe9"),
        ("b.json", '[{"text": "café"}]', "byte 15 of line 1 is 0xe9"),
        ("b.jsonl", '{"text": "first"}\n{"text": "café"}\n', "byte 14 of line 2 is 0xe9"),
    ],
)
def test_the_place_that_is_no_utf8_is_named(tmp_path, name, content, place):
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    (tmp_path / name.replace("b", "a")).write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"{name}' is not UTF-8: {place}\. Save it as UTF-8"):
        load_text(tmp_path)


@pytest.mark.parametrize("name", ["rows.parquet", "rows.jsonl"])
def test_what_is_broken_otherwise_is_not_said_to_be_no_utf8(tmp_path, name):
    path = tmp_path / name
    path.write_text('{"text": \n')
    if path.suffix == ".parquet":
        Dataset.from_dict({"text": ["one", "two"]}).to_parquet(path)
        content = path.read_bytes()
        path.write_bytes(content[:4] + b"\xff" * 20 + content[24:])
    with pytest.raises(DatasetGenerationError):
        load_text(path)


def test_nothing_to_read_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no file with one of the extensions"):
        load_text(tmp_path)
    with pytest.raises(ValueError, match="`source` is an empty list"):
        load_text([])
    (tmp_path / "empty.txt").touch()
    with pytest.raises(ValueError, match="holds no rows"):
        load_text(tmp_path / "empty.txt")


def test_hub_options_and_other_splits_are_refused_for_local_files(folder):
    for option in ({"revision": "v1"}, {"token": "secret"}, {"name": "en"}):
        with pytest.raises(ValueError, match="`revision`, `token` and `name` are for Hub data sets"):
            load_text(folder, **option)
    with pytest.raises(ValueError, match='Unknown split "test"'):
        load_text(folder, split="test")
    assert len(load_text(folder, split="train[:2]")) == 2
