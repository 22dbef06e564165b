"""Changed, cut, swapped and foreign files of a cache: what is read is what was written for it, or is refused."""

import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import build, collator, examples, make_teacher, tokenizer

from hf_dwt import Teacher, TeacherCache, cache_teacher
from hf_dwt.cache import writing
from hf_dwt.cache.manifest import read_manifest


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "_EXAMPLES_PER_SHARD", 10)


def cached(folder: Path, **settings: Any) -> TeacherCache:
    teacher = settings.pop("teacher", None) or Teacher(make_teacher(), tokenizer())
    return cache_teacher(teacher, examples(), folder, **{"top_k": 4, "processing_class": tokenizer(), **settings})


def told(folder: Path) -> dict[str, torch.Tensor]:
    return TeacherCache(folder).add_to(collator("masked")(list(examples())))


def is_the_same_or_refused(folder: Path, true: dict[str, torch.Tensor]) -> bool:
    try:
        found = told(folder)
    except ValueError as error:
        return str(folder) in str(error)
    return all(torch.equal(found[name], true[name]) for name in true)


def put(path: Path, content: bytes) -> None:
    # Into a new file: one that is mapped would change under its readers.
    path.unlink()
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["cache.json", "epoch-0000-from-0000000000.arrow", "epoch-0000-from-0000000020.arrow"])
def test_a_changed_bit_is_noticed_or_makes_no_difference(name: str, tmp_path: Path) -> None:
    cached(tmp_path)
    true, content, draw = told(tmp_path), (tmp_path / name).read_bytes(), random.Random(0)
    for place in draw.sample(range(len(content)), 150):
        changed = bytearray(content)
        changed[place] ^= 1 << draw.randrange(8)
        put(tmp_path / name, bytes(changed))
        assert is_the_same_or_refused(tmp_path, true), place


def test_a_file_that_is_cut_anywhere_is_refused(tmp_path: Path) -> None:
    cached(tmp_path)
    for path in list(tmp_path.iterdir()):
        content = path.read_bytes()
        for size in (0, 1, len(content) // 2, len(content) - 2):
            put(path, content[:size])
            with pytest.raises(ValueError, match="is corrupt"):
                told(tmp_path)
        put(path, content)
    told(tmp_path)


def test_shards_that_have_changed_places_are_of_no_harm(tmp_path: Path) -> None:
    cached(tmp_path)
    true = told(tmp_path)
    first, second = sorted(tmp_path.glob("*.arrow"))[:2]
    contents = first.read_bytes(), second.read_bytes()
    put(first, contents[1])
    put(second, contents[0])
    assert is_the_same_or_refused(tmp_path, true)


@pytest.mark.parametrize(
    "other",
    [
        {"teacher": build("masked", 12, 1, seed=9)},
        {"seed": 7},
        {"top_k": 5},
        {"tail_samples": 3},
        {"dtype": "float32"},
        {"data_collator": collator("masked", mask_probability=0.5)},
    ],
)
def test_shards_of_another_cache_are_refused(other: dict[str, Any], tmp_path: Path) -> None:
    cached(tmp_path / "own")
    cached(tmp_path / "other", **other)
    told(tmp_path / "own")
    sizes = {}
    for path in (tmp_path / "other").glob("*.arrow"):
        shutil.copy(path, tmp_path / "own" / path.name)
        sizes[path.name] = path.stat().st_size
    with pytest.raises(ValueError, match=r"is corrupt|it belongs to other data"):
        told(tmp_path / "own")
    # Not even with the sizes that they have.
    manifest = read_manifest(tmp_path / "own")
    assert manifest is not None
    replace(manifest, shards=sizes).write(tmp_path / "own")
    with pytest.raises(ValueError, match=r"is corrupt|it belongs to other data"):
        told(tmp_path / "own")


def test_an_epoch_that_was_not_cached_is_refused(tmp_path: Path) -> None:
    cache, later = cached(tmp_path, epochs=2), collator("masked")
    for epoch in (0, 1):
        later.set_epoch(epoch)
        cache.add_to(later(list(examples())))
    later.set_epoch(2)
    with pytest.raises(ValueError, match="it belongs to other data, another tokenizer, seed or `data_collator`"):
        cache.add_to(later(list(examples())))


def test_an_epochs_shard_of_another_epoch_is_refused(tmp_path: Path) -> None:
    cached(tmp_path, epochs=2)
    for path in tmp_path.glob("epoch-0001-*.arrow"):
        target = tmp_path / path.name.replace("epoch-0001", "epoch-0000")
        put(target, path.read_bytes())
    with pytest.raises(ValueError, match=r"is corrupt|it belongs to other data"):
        told(tmp_path)
