"""A cache is written whole or gone on with; corrupt, partial and foreign ones are told as what they are."""

import errno
import fcntl
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets.arrow_writer import ArrowWriter
from filelock import FileLock, Timeout
from tiny_runs import build, collator, examples, kind_of, labelled_examples, make_teacher, tokenizer

from hf_dwt import Teacher, TeacherCache, cache_teacher
from hf_dwt.cache import locking, writing
from hf_dwt.cache.keys import draws_of, keys_of
from hf_dwt.cache.reading import take_excerpt
from hf_dwt.cache.writing import bytes_per_position
from hf_dwt.positions import logits_at, positions_of, without_labels


def teacher(kind: str = "masked") -> Teacher:
    return Teacher(make_teacher(kind), tokenizer())


def cached(folder: Path, kind: str = "masked", **settings: Any) -> TeacherCache:
    return cache_teacher(teacher(kind), examples(), folder, **{"top_k": 4, "tail_samples": 0, **settings})


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "_EXAMPLES_PER_SHARD", 10)


@pytest.mark.parametrize("kind", ["masked", "causal"])
@pytest.mark.parametrize("size", [1, 7])
def test_batches_get_what_the_teacher_says_of_them_whatever_their_size_and_order(
    kind: str, size: int, tmp_path: Path
) -> None:
    cache = cached(tmp_path, kind, dtype="float32")
    rows = list(examples())[::-1][:size]
    batch = cache.add_to(collator(kind)(rows))
    inputs, excerpt = take_excerpt(batch, cache.manifest)
    positions = positions_of(kind_of(kind), inputs)
    with torch.no_grad():
        logs = logits_at(make_teacher(kind).eval(), without_labels(inputs), positions).log_softmax(-1)
    assert excerpt is not None
    assert torch.allclose(excerpt.logs, logs.topk(4).values, atol=1e-5)
    assert torch.allclose(logs.gather(-1, excerpt.ids.long()), excerpt.logs, atol=1e-5)
    assert torch.allclose(excerpt.rest, 1 - excerpt.logs.exp().sum(-1), atol=1e-5)
    assert torch.allclose(excerpt.label_logs, logs.gather(-1, positions.labels[:, None]).squeeze(-1), atol=1e-5)


def test_columns_that_the_teacher_does_not_read_are_left_out(tmp_path: Path) -> None:
    data = labelled_examples("masked")
    plain = cache_teacher(teacher(), data, tmp_path / "plain")
    with_text = data.add_column("text", ["a cat"] * len(data))
    assert cache_teacher(teacher(), with_text, tmp_path / "text").manifest.data == plain.manifest.data


@pytest.mark.parametrize("kind", ["masked", "causal"])
def test_drawn_tokens_stand_behind_the_likely_ones_and_belong_to_the_examples(kind: str, tmp_path: Path) -> None:
    drawn = {"tail_samples": 3, "dtype": "float32"}
    small, large = (cached(tmp_path / str(size), kind, batch_size=size, **drawn) for size in (1, 7))
    rows = list(examples())[::-1]
    (inputs, excerpt), (_, other) = (
        take_excerpt(each.add_to(collator(kind)(rows)), each.manifest) for each in (small, large)
    )
    with torch.no_grad():
        logs = logits_at(make_teacher(kind).eval(), without_labels(inputs), positions_of(kind_of(kind), inputs))
    logs = logs.log_softmax(-1)
    assert excerpt.num_drawn == 3
    assert excerpt.ids.shape == (len(logs), 7)
    assert torch.equal(excerpt.ids, other.ids)
    assert torch.equal(excerpt.ids[:, :4].long(), logs.topk(4).indices)
    assert (excerpt.ids[:, :4, None] != excerpt.ids[:, None, 4:]).all()
    assert len(set(excerpt.ids[:, 4:].flatten().tolist())) > 4
    assert torch.allclose(logs.gather(-1, excerpt.ids.long()), excerpt.logs, atol=1e-5)
    assert torch.allclose(excerpt.weights.sum(-1), torch.ones(len(logs)), atol=1e-5)


def test_numbers_to_draw_by_are_other_ones_with_other_masks_and_one_in_each_part() -> None:
    rows = list(examples())
    other = collator("masked")
    other.set_epoch(1)
    keys = [keys_of(each(rows)) for each in (collator("masked"), other)]
    counts = np.full(len(rows), 50)
    first, second = (draws_of(each, counts, 4) for each in keys)
    assert first.shape == (50 * len(rows), 4)
    # An example of few words may be masked twice in the same way.
    is_other = np.repeat(keys[0] != keys[1], 50)
    assert is_other.mean() > 0.5
    assert not (first == second)[is_other].any()
    assert (np.floor(4 * first) == np.arange(4)).all()
    # Averages of what is uniform in [0, 1), four standard errors around 1 / 2.
    assert np.abs((4 * first) % 1 - 0.5).mean() == pytest.approx(0.25, abs=4 * 0.15 / first.size**0.5)
    assert ((4 * first) % 1).mean(axis=0) == pytest.approx(0.5, abs=4 * 0.29 / len(first) ** 0.5)
    alone = draws_of(keys[0][1:2], counts[1:2], 4)
    assert (alone == first[50:100]).all()


def test_keys_are_of_what_is_read_and_asked_not_of_padding() -> None:
    rows = list(examples())
    alone, together = keys_of(collator("masked")(rows[:1])), keys_of(collator("masked")(rows))
    assert alone[0] == together[0]
    assert len(set(together.tolist())) > 12
    other = collator("masked")
    other.set_epoch(1)
    assert (keys_of(other(rows)) != together).any()


def test_token_types_belong_to_keys_where_any_is_not_0_and_are_read() -> None:
    batch = collator("masked")(list(examples())[:3])
    plain, types = keys_of(batch), torch.zeros_like(batch["input_ids"])
    assert (keys_of({**batch, "token_type_ids": types}) == plain).all()
    types[1, 2] = 1
    changed = {**batch, "token_type_ids": types}
    assert (keys_of(changed) == plain).tolist() == [True, False, True]
    assert (keys_of(changed, reads_token_types=False) == plain).all()
    padded = torch.where(batch["attention_mask"] == 0, 1, 0)
    assert padded.any()
    assert (keys_of({**batch, "token_type_ids": padded}) == plain).all()


def with_types(number: int) -> list[dict[str, Any]]:
    return [{**row, "token_type_ids": [0, *[number] * (len(row["input_ids"]) - 1)]} for row in examples()]


def test_the_same_words_of_other_types_are_other_examples(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"top_k": 4, "tail_samples": 0}
    ones = cache_teacher(teacher(), with_types(1), tmp_path / "ones", **settings)
    zeros = cache_teacher(teacher(), with_types(0), tmp_path / "zeros", **settings)
    assert zeros.manifest.data == cached(tmp_path / "none").manifest.data != ones.manifest.data
    told = ones.add_to(collator("masked")(with_types(1)))
    other = zeros.add_to(collator("masked")(with_types(0)))
    assert not torch.equal(told["cached_logs"], other["cached_logs"])
    for batch in (with_types(0), list(examples())):
        with pytest.raises(ValueError, match="its teacher read `token_type_ids` that the student does not"):
            ones.add_to(collator("masked")(batch))


def test_a_teacher_that_reads_no_types_says_the_same_of_all(tmp_path: Path) -> None:
    unaware = Teacher(build("distilbert", 12, 1), tokenizer())
    cache = cache_teacher(unaware, with_types(1), tmp_path, top_k=4)
    rows = [cache.add_to(collator("masked")(data)) for data in (with_types(1), with_types(0), list(examples()))]
    assert all(torch.equal(each["cached_ids"], rows[0]["cached_ids"]) for each in rows)


def test_a_cache_that_does_not_tell_of_types_is_read_by_keys_without_them(tmp_path: Path) -> None:
    cache = cached(tmp_path)
    manifest = cache.manifest
    del manifest.teacher["reads_token_types"]
    manifest.write(tmp_path)
    assert "cached_ids" in TeacherCache(tmp_path).add_to(collator("masked")(with_types(1)))


def test_bytes_per_position_and_the_disk_needed_are_told_before_it_starts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert bytes_per_position(16, "float16") == 16 * 6 + 8
    cached(tmp_path / "bucket", tail_samples=0)
    assert "32 bytes per position, about 0.0 MiB" in caplog.text
    cached(tmp_path / "drawn", tail_samples=3)
    assert "50 bytes per position, about 0.0 MiB" in caplog.text
    everything = len(tokenizer())
    cached(tmp_path / "whole", top_k=everything, tail_samples=3)
    assert f"{6 * everything + 8} bytes per position" in caplog.text


def test_a_whole_cache_is_taken_without_asking_the_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached(tmp_path)
    monkeypatch.setattr(Teacher, "head_at", None)
    assert cached(tmp_path).manifest.is_complete
    with pytest.raises(TypeError):
        cached(tmp_path / "other")


def test_a_folder_at_home_may_be_named_by_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cached(Path("~/cache")).folder == tmp_path / "home" / "cache"
    assert TeacherCache("~/cache").manifest.is_complete


def test_writing_goes_on_where_it_was_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    ask = writing._Writer._ask

    def dies(writer: Any, batch: Any, *settings: Any) -> Any:
        asked.append(len(batch["input_ids"]))
        if len(asked) == 4:
            raise KeyboardInterrupt
        return ask(writer, batch, *settings)

    monkeypatch.setattr(writing._Writer, "_ask", dies)
    with pytest.raises(KeyboardInterrupt):
        cached(tmp_path / "cut", epochs=2, tail_samples=3)
    with pytest.raises(ValueError, match="is partial, 3 shards are written: call `cache_teacher` again"):
        TeacherCache(tmp_path / "cut")
    cut, whole = (cached(tmp_path / name, epochs=2, tail_samples=3) for name in ("cut", "whole"))
    assert len(asked) == 4 + 3 + 6
    assert cut.manifest == whole.manifest
    names = [*cut.manifest.shards, "cache.json"]
    assert {path.name for path in (tmp_path / "cut").iterdir()} == set(names)
    assert all((tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes() for name in names)


def test_one_process_at_a_time_writes_and_the_others_take_what_it_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    ask = writing._Writer._ask
    monkeypatch.setattr(writing._Writer, "_ask", lambda *given: asked.append(1) or ask(*given))
    other = FileLock(tmp_path / "cache.lock")
    other.acquire()

    def ends(message: str) -> None:
        assert "Another process writes the cache" in message
        assert not asked
        other.release()
        cached(tmp_path)

    monkeypatch.setattr(locking.logger, "warning", ends)
    assert cached(tmp_path).manifest.is_complete
    assert len(asked) == len(list(tmp_path.glob("*.arrow"))) == 3
    assert not list(tmp_path.rglob("*.lock"))


def test_a_lock_file_that_is_removed_while_another_process_opens_it_locks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, lock, removed = tmp_path / "cache.lock", fcntl.flock, []

    def lock_what_is_gone(descriptor: int, operation: int) -> None:
        # Whoever held it ends between opening and locking.
        if not removed and path.exists():
            removed.append(path)
            path.unlink()
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", lock_what_is_gone)
    with locking.alone_in(tmp_path):
        assert removed
        with pytest.raises(Timeout):
            FileLock(path).acquire(timeout=0)


# A full disk


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(OSError, match=r"needs \d+ bytes per position, .* Lower `top_k`, `tail_samples` or `epochs`"):
        cached(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up_keeps_what_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finalize = ArrowWriter.finalize
    calls: list[int] = []

    def full(writer: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return finalize(writer, *args, **kwargs)

    monkeypatch.setattr(ArrowWriter, "finalize", full)
    with pytest.raises(OSError, match=r"No space left on device\. What is written is kept: mend that \(make room"):
        cached(tmp_path)
    assert len(list(tmp_path.glob("*.arrow"))) == 1
    assert not list(tmp_path.glob("*.unfinished"))
    assert cached(tmp_path).manifest.is_complete


def test_an_example_that_cannot_be_read_is_not_told_as_one_that_cannot_be_written(tmp_path: Path) -> None:
    class Broken(list[Any]):
        is_broken = True

        def __getitem__(self, index: Any) -> Any:
            if self.is_broken and index == 13 and list(tmp_path.glob("*.arrow")):
                raise OSError(errno.EIO, "Input/output error")
            return super().__getitem__(index)

    data = Broken(examples())
    with pytest.raises(OSError, match=r"could not be completed: .*Input/output error\. What is written is kept: mend"):
        cache_teacher(teacher(), data, tmp_path, top_k=4)
    assert [path.suffix for path in tmp_path.glob("epoch*")] == [".arrow"]
    data.is_broken = False
    assert cache_teacher(teacher(), data, tmp_path, top_k=4).manifest.is_complete


def test_a_collator_of_ones_own_draws_the_masks_afterwards_that_it_drew_before(tmp_path: Path) -> None:
    own = collator("masked")
    own.set_epoch(5)
    for _ in ("written", "found"):
        cached(tmp_path, epochs=2, data_collator=own)
        assert own.epoch == 5
    with pytest.raises(ValueError, match="holds another cache"):
        cached(tmp_path, top_k=5, data_collator=own)
    assert own.epoch == 5
    assert cached(tmp_path / "evaluation", data_collator=own.for_evaluation()).manifest.is_complete


# Corrupt and foreign caches


def spoil(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(bytes(content))


def test_a_shard_that_is_cut_or_gone_is_corrupt(tmp_path: Path) -> None:
    cache = cached(tmp_path)
    path = tmp_path / next(iter(cache.manifest.shards))
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"is corrupt: epoch-0000-.* should have .* bytes and is [\d,]+ bytes"):
        TeacherCache(tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match="and is missing"):
        TeacherCache(tmp_path)


def test_a_shard_with_a_changed_byte_is_noticed_when_it_is_read(tmp_path: Path) -> None:
    cache = cached(tmp_path)
    path = tmp_path / next(iter(cache.manifest.shards))
    # The log-probability of a label stands there somewhere; the bytes of a float are found by their value.
    value = cache._shards[0].column("label_logs")[0].values.to_numpy().tobytes()
    spoil(path, path.read_bytes().index(value))
    spoilt = TeacherCache(tmp_path)
    with pytest.raises(ValueError, match=r"is corrupt: epoch-0000-from-0000000000\.arrow is not what was written"):
        spoilt.add_to(collator("masked")(list(examples())[:10]))


def test_a_description_that_cannot_be_read_is_corrupt(tmp_path: Path) -> None:
    cached(tmp_path)
    content = json.loads((tmp_path / "cache.json").read_text())
    for text in ("{", json.dumps({**content, "more": 1})):
        (tmp_path / "cache.json").write_text(text)
        with pytest.raises(ValueError, match="is corrupt, or of another version"):
            TeacherCache(tmp_path)


@pytest.mark.parametrize(
    "change", [{"epochs": 3}, {"impression": {"teacher_loss": 0.1, "unigram_loss": 9.0, "num_positions": 99}}]
)
def test_a_description_that_was_edited_is_corrupt(change: dict[str, Any], tmp_path: Path) -> None:
    cached(tmp_path)
    content = json.loads((tmp_path / "cache.json").read_text())
    (tmp_path / "cache.json").write_text(json.dumps({**content, **change}))
    with pytest.raises(ValueError, match="its content is not what was written"):
        TeacherCache(tmp_path)


def test_examples_and_masks_of_another_run_are_refused(tmp_path: Path) -> None:
    cache = cached(tmp_path)
    other_masks = collator("masked")
    other_masks.set_epoch(1)
    backwards = [{"input_ids": row[::-1]} for row in examples()["input_ids"]]
    for batch in (other_masks(list(examples())), collator("masked")(backwards)):
        with pytest.raises(ValueError, match="it belongs to other data, another tokenizer, seed or `data_collator`"):
            cache.add_to(batch)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"top_k": 5}, "top_k"),
        ({"tail_samples": 3}, "tail_samples"),
        ({"epochs": 2}, "epochs"),
        ({"seed": 1}, "data"),
        ({"dtype": "float32"}, "dtype"),
        ({"dataset": examples(24, first_word=3)}, "data"),
        ({"teacher": build("masked", 12, 1, seed=9)}, "model"),
    ],
)
def test_another_cache_is_not_written_over(change: dict[str, Any], named: str, tmp_path: Path) -> None:
    cached(tmp_path)
    settings = {"teacher": teacher(), "dataset": examples(), "top_k": 4, "tail_samples": 0, **change}
    settings["processing_class"] = tokenizer()
    with pytest.raises(ValueError, match=rf"holds another cache: it differs in .*{named}.*Name another folder"):
        cache_teacher(folder=tmp_path, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_k": 0}, "`top_k` must be a whole number, at least 1"),
        ({"tail_samples": -1}, "`tail_samples` must be a whole number, at least 0"),
        ({"tail_samples": True}, "`tail_samples` must be a whole number"),
        ({"epochs": True}, "`epochs` must be a whole number"),
        ({"dtype": "int8"}, "`dtype` must be 'float16' or 'float32'"),
        ({"dataset": []}, "must hold examples"),
        ({"dataset": examples().to_iterable_dataset()}, "a stream cannot be cached"),
    ],
)
def test_what_cannot_be_cached_is_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        cache_teacher(**{"teacher": teacher(), "dataset": examples(), "folder": tmp_path, **settings})
