"""A student learns from a cache what it would have learnt from the teacher."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import KINDS, build, examples, largest_difference, make_student, make_teacher, tokenizer
from torch.utils.data import IterableDataset
from trainer_runs import make_trainer, trained_weights, training_logs
from transformers import PreTrainedTokenizerFast

from hf_dwt import DWTTrainer, Teacher, TeacherCache, cache_teacher

VOCABULARY = len(tokenizer())


def cached(folder: Path, kind: str = "masked", **settings: Any) -> TeacherCache:
    teacher = Teacher(make_teacher(kind), tokenizer())
    return cache_teacher(teacher, examples(), folder, **{"top_k": VOCABULARY, "dtype": "float32", **settings})


@pytest.mark.parametrize("kind", KINDS)
def test_a_cache_of_all_tokens_trains_the_weights_of_the_live_teacher(kind: str, tmp_path: Path) -> None:
    settings = {"num_train_epochs": 2, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 4}
    live = trained_weights(tmp_path / "live", kind, **settings)
    told = trained_weights(tmp_path / "told", kind, teacher=cached(tmp_path / "cache", kind, epochs=2), **settings)
    assert largest_difference(live, told) < 1e-5
    alone = trained_weights(tmp_path / "alone", kind, teacher=None, **settings)
    assert largest_difference(alone, told) > 1e-2


def test_logs_are_those_of_the_live_teacher(tmp_path: Path) -> None:
    runs = [
        make_trainer(tmp_path / name, teacher=teacher, logging_steps=1, num_train_epochs=1)
        for name, teacher in {"live": make_teacher(), "told": cached(tmp_path / "cache")}.items()
    ]
    for trainer in runs:
        trainer.train()
    names = ("hard_loss", "soft_loss", "teacher_hard_loss", "train_gap", "soft_loss_weight")
    for live, told in zip(*map(training_logs, runs), strict=True):
        assert {name: told[name] for name in names} == pytest.approx({name: live[name] for name in names}, abs=1e-5)


def test_a_smoothed_loss_is_not_compared_with_one_that_was_kept_without_smoothing(tmp_path: Path) -> None:
    settings = {"logging_steps": 1, "max_steps": 2, "label_smoothing_factor": 0.3}
    runs = [
        make_trainer(tmp_path / name, teacher=teacher, **settings)
        for name, teacher in {"live": make_teacher(), "told": cached(tmp_path / "cache")}.items()
    ]
    for trainer in runs:
        trainer.train()
    for live, told in zip(*map(training_logs, runs), strict=True):
        assert live.keys() - told.keys() == {"teacher_hard_loss", "train_gap"}
        same = ("loss", "hard_loss", "soft_loss")
        assert {name: told[name] for name in same} == pytest.approx({name: live[name] for name in same}, abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_many_drawn_tokens_train_as_the_live_teacher_does_where_a_bucket_does_not(kind: str, tmp_path: Path) -> None:
    settings = {"num_train_epochs": 2, "weighting": "constant", "soft_loss_weight": 4.0}
    live = trained_weights(tmp_path / "live", kind, **settings)
    off = {}
    for name, tail_samples in {"bucket": 0, "drawn": 300}.items():
        cache = cached(tmp_path / f"{name}-cache", kind, top_k=2, tail_samples=tail_samples, epochs=2)
        off[name] = largest_difference(live, trained_weights(tmp_path / name, kind, teacher=cache, **settings))
    assert off["drawn"] < 0.2 * off["bucket"]


def test_longer_runs_take_the_masks_of_the_first_epoch_again(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, teacher=cached(tmp_path / "cache", epochs=2), num_train_epochs=5)
    taken: list[int] = []
    set_epoch = trainer.data_collator.set_epoch
    trainer.data_collator.set_epoch = lambda epoch: taken.append(epoch) or set_epoch(epoch)
    trainer.train()
    assert taken == [0, 1, 0, 1, 0]


def test_workers_read_ahead(tmp_path: Path) -> None:
    settings = {"num_train_epochs": 1, "teacher": cached(tmp_path / "cache")}
    with_workers = trained_weights(tmp_path / "a", dataloader_num_workers=1, **settings)
    assert largest_difference(with_workers, trained_weights(tmp_path / "b", **settings)) == 0


def test_evaluation_is_that_of_the_student_alone(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, teacher=cached(tmp_path / "cache"), eval_dataset=examples(8), max_steps=1)
    trainer.train()
    metrics = trainer.evaluate()
    assert "eval_loss" in metrics
    assert "eval_gap" not in metrics


def test_a_cache_of_other_masks_stops_before_the_first_step(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, teacher=cached(tmp_path / "cache", seed=7))
    with pytest.raises(ValueError, match="it belongs to other data, another tokenizer, seed"):
        trainer.train()
    assert trainer.state.global_step == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 2.0}, "`temperature` must be 1 with a cache"),
        ({"teacher_placement": "offload"}, "`teacher_placement` says where a model is kept, got 'offload'"),
        ({"teacher_dtype": "float16"}, "`teacher_dtype` says in which precision a model is run, got 'float16'"),
        ({"map_added_tokens_to_unknown": True}, "`map_added_tokens_to_unknown` says what a model is shown"),
        ({"accelerator_config": {"dispatch_batches": True}}, "`dispatch_batches=True` cannot be used with a cache"),
        ({"architecture": "causal"}, "is of a masked language model, `model` is a causal one"),
        ({"model": "small"}, "`model` knows fewer"),
        ({"processing_class": "other"}, "belongs to another tokenizer than `processing_class`"),
    ],
)
def test_a_cache_that_does_not_fit_is_refused_at_once(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    if settings.get("model") == "small":
        small = make_student()
        small.resize_token_embeddings(9)
        settings = {"model": small}
    if settings.get("processing_class") == "other":
        other = PreTrainedTokenizerFast(tokenizer_object=tokenizer().backend_tokenizer, mask_token="[MASK]")
        other.add_tokens(["moon"])
        settings = {"processing_class": other}
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, teacher=cached(tmp_path / "cache"), **settings)


def test_a_policy_that_follows_the_gap_needs_the_teacher_itself(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, teacher=cached(tmp_path / "cache"), weighting="handover")
    with pytest.raises(ValueError, match="pass it, not its cache"):
        trainer.train()


def test_a_useless_teacher_is_told_when_it_is_cached_and_refused_when_it_would_be_heard(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    useless = build("masked", 12, 1, seed=9)
    cache = cache_teacher(Teacher(useless, tokenizer()), examples(), tmp_path / "cache", top_k=4, batch_size=8)
    assert "is no better than guessing by token frequency: its loss is " in caplog.text
    with pytest.raises(ValueError, match="is no better than guessing") as told:
        make_trainer(tmp_path, teacher=cache).train()
    with pytest.raises(ValueError, match="is no better than guessing") as live:
        make_trainer(tmp_path, teacher=useless).train()
    loss, unigram = r"its loss is ([\d.]+) against ([\d.]+) nats at ([\d,]+) positions", []
    for error in (told, live):
        unigram.append(re.search(loss, str(error.value)).groups())
    assert unigram[0] == unigram[1]
    make_trainer(tmp_path, teacher=cache, allow_bad_teacher=True, max_steps=1).train()


def test_a_good_teacher_is_cached_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = cached(tmp_path)
    assert "guessing" not in caplog.text
    assert cache.manifest.impression.teacher_loss < cache.manifest.impression.unigram_loss
    again = cache_teacher(
        make_teacher(), examples(), tmp_path, VOCABULARY, dtype="float32", processing_class=tokenizer()
    )
    assert again.manifest == cache.manifest


def test_more_examples_than_were_cached_are_refused_before_the_first_step(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, teacher=cached(tmp_path / "cache"), train_dataset=examples(30))
    with pytest.raises(ValueError, match=r"has 30 examples, the cache .* holds 24: it belongs to other data"):
        trainer.train()


class OwnLoader(DWTTrainer):
    """Makes its batches itself."""

    def get_train_dataloader(self) -> Any:
        rows = [self.data_collator([row]) for row in examples()]
        return self.accelerator.prepare(rows) or rows


class CountedStream(IterableDataset[dict[str, Any]]):
    """A stream that tells how many examples it has, as one of PyTorch may."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        yield from examples()

    def __len__(self) -> int:
        return len(examples())


def test_batches_and_data_that_cannot_hold_predictions_are_refused(tmp_path: Path) -> None:
    cache = cached(tmp_path / "cache")
    base = make_trainer(tmp_path, teacher=cache)
    own = OwnLoader(make_student(), base.args, train_dataset=examples(), processing_class=tokenizer(), teacher=cache)
    with pytest.raises(ValueError, match="holds nothing of what the teacher said"):
        own.train()
    stream = make_trainer(tmp_path, teacher=cache, train_dataset=examples().to_iterable_dataset(), max_steps=1)
    with pytest.raises(ValueError, match="A stream cannot be trained on from a cache"):
        stream.train()
    counted = make_trainer(tmp_path, teacher=cache, train_dataset=CountedStream(), max_steps=1)
    with pytest.raises(ValueError, match="A stream cannot be trained on from a cache"):
        counted.train()
    with pytest.raises(ValueError, match="a stream cannot be cached"):
        cache_teacher(make_teacher(), CountedStream(), tmp_path / "other", processing_class=tokenizer())


@pytest.mark.parametrize(
    "other", [{"teacher": build("masked", 12, 1, seed=9)}, {"tail_samples": 3}, {"epochs": 2}, {"live": True}]
)
def test_another_cache_is_refused_on_resuming(other: dict[str, Any], tmp_path: Path) -> None:
    def trainer_with(teacher: Any) -> DWTTrainer:
        saves = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1}
        return make_trainer(tmp_path, teacher=teacher, allow_bad_teacher=True, **saves)

    settings = {"teacher": make_teacher(), "top_k": 4, "processing_class": tokenizer()}
    trainer_with(cache_teacher(dataset=examples(), folder=tmp_path / "cache", **settings)).train()
    if "live" in other:
        another: Any = make_teacher()
    else:
        another = cache_teacher(dataset=examples(), folder=tmp_path / "other", **{**settings, **other})
    checkpoint = str(tmp_path / "checkpoint-1")
    with pytest.raises(
        ValueError, match=r"learnt from another teacher \(a model passed in memory, cache \w{8}-1\) than"
    ):
        trainer_with(another).train(checkpoint)
    shutil.move(tmp_path / "cache", tmp_path / "moved")
    trainer_with(TeacherCache(tmp_path / "moved")).train(checkpoint)


def test_the_record_names_the_teacher_behind_the_cache_and_charges_nothing_for_it(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, teacher=cached(tmp_path / "cache"), max_steps=1)
    trainer.train()
    record = trainer.record()
    assert record["teacher"]["architecture"] == "BertForMaskedLM"
    assert record["teacher"]["num_parameters"] == make_teacher().num_parameters()
    assert record["training"]["teacher_share"] is None
    live = make_trainer(tmp_path / "live", max_steps=1)
    live.train()
    assert 0 < live.record()["training"]["teacher_share"] < 1
