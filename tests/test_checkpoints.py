"""Telling whole checkpoints from half-written ones, by themselves and while a trainer writes them."""

import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import arguments, examples, make_student, make_teacher, tokenizer
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from hf_dwt import DWTTrainer
from hf_dwt.checkpoints import (
    checkpoint_folder,
    checkpoint_to_resume,
    has_whole_checkpoint,
    invalidate,
    is_whole,
    last_whole_checkpoint,
    make_room,
    require_optimizer,
    require_whole,
)

STATE = '{"global_step": 2, "log_history": []}'


def write_checkpoint(folder: Path, step: int, state: str | None = STATE) -> Path:
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "model.safetensors").write_bytes(b"weights")
    if state is not None:
        (checkpoint / "trainer_state.json").write_text(state)
    return checkpoint


def test_a_checkpoint_with_a_readable_state_is_whole(tmp_path: Path) -> None:
    assert is_whole(write_checkpoint(tmp_path, 2))
    assert is_whole(str(tmp_path / "checkpoint-2"))


def test_a_checkpoint_without_a_state_is_half_written(tmp_path: Path) -> None:
    assert not is_whole(write_checkpoint(tmp_path, 2, state=None))


@pytest.mark.parametrize("length", range(len(STATE)))
def test_a_checkpoint_whose_state_is_cut_off_anywhere_is_half_written(length: int, tmp_path: Path) -> None:
    assert not is_whole(write_checkpoint(tmp_path, 2, state=STATE[:length]))


def test_a_checkpoint_whose_state_is_no_text_is_half_written(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, 2)
    (checkpoint / "trainer_state.json").write_bytes(b"\xff\x00\xfe")
    assert not is_whole(checkpoint)


def test_a_folder_that_does_not_exist_is_no_whole_checkpoint(tmp_path: Path) -> None:
    assert not is_whole(tmp_path / "nowhere")


def test_the_last_whole_checkpoint_is_that_of_the_highest_step_and_not_of_the_last_name(tmp_path: Path) -> None:
    for step in (10, 9, 2, 100, 20):
        write_checkpoint(tmp_path, step)
    assert last_whole_checkpoint(tmp_path) == str(tmp_path / "checkpoint-100")


def test_half_written_checkpoints_after_the_last_whole_one_are_passed_over(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 9)
    write_checkpoint(tmp_path, 10)
    write_checkpoint(tmp_path, 11, state=None)
    write_checkpoint(tmp_path, 12, state=STATE[:5])
    assert last_whole_checkpoint(str(tmp_path)) == str(tmp_path / "checkpoint-10")
    assert get_last_checkpoint(str(tmp_path)) == str(tmp_path / "checkpoint-12")


def test_files_and_folders_of_other_names_are_no_checkpoints(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 2).rename(tmp_path / "best")
    (tmp_path / "checkpoint-3").write_text("a file")
    assert not has_whole_checkpoint(tmp_path)
    with pytest.raises(ValueError, match="No valid checkpoint found"):
        last_whole_checkpoint(tmp_path)


@pytest.mark.parametrize("folder", ["empty", "nowhere"])
def test_a_run_without_checkpoints_has_none_to_resume_from(folder: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=rf"No valid checkpoint found in output directory \(.*{folder}\)\.$"):
        last_whole_checkpoint(tmp_path / folder)
    assert not has_whole_checkpoint(tmp_path / folder)


def test_a_run_with_half_written_checkpoints_alone_says_how_many(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 2, state=None)
    write_checkpoint(tmp_path, 4, state="{")
    with pytest.raises(ValueError, match=r"No valid checkpoint .* \(2 were half-written and are ignored\)\.$"):
        last_whole_checkpoint(tmp_path)
    assert not has_whole_checkpoint(tmp_path)
    write_checkpoint(tmp_path, 6)
    assert has_whole_checkpoint(tmp_path)


def test_a_whole_checkpoint_may_be_resumed_from(tmp_path: Path) -> None:
    require_whole(write_checkpoint(tmp_path, 2))


def test_a_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"Can't find a valid checkpoint at '.*nowhere': there is no such"):
        require_whole(tmp_path / "nowhere")


@pytest.mark.parametrize("state", [None, STATE[:-1]], ids=["missing", "cut off"])
def test_a_half_written_checkpoint_is_refused_and_the_way_out_told(state: str | None, tmp_path: Path) -> None:
    message = (
        r"The checkpoint '.*checkpoint-2' is half-written: its trainer_state\.json is missing or cut off\. "
        "Pass `resume_from_checkpoint=True` for the last whole one"
    )
    with pytest.raises(ValueError, match=message):
        require_whole(write_checkpoint(tmp_path, 2, state=state))


@pytest.mark.parametrize(
    "files",
    [
        ["optimizer.pt", "scheduler.pt"],
        ["optimizer.bin", "scheduler.pt"],
        ["optimizer_0/__0_0.distcp", "scheduler.pt"],
        ["rank0-of-2-optimizer.pt", "scheduler.pt"],
        ["latest", "global_step2/mp_rank_00_model_states.pt"],
    ],
    ids=["plain", "fsdp", "fsdp in shards", "fsdp on tpu", "deepspeed"],
)
def test_a_checkpoint_with_an_optimizer_may_be_resumed_from(files: list[str], tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, 2)
    for name in files:
        (checkpoint / name).parent.mkdir(exist_ok=True)
        (checkpoint / name).touch()
    require_optimizer(checkpoint)


@pytest.mark.parametrize(
    ("files", "missing"),
    [([], "optimizer.pt and no scheduler.pt"), (["optimizer.pt"], "scheduler.pt"), (["scheduler.pt"], "optimizer.pt")],
)
def test_a_checkpoint_of_the_model_alone_is_refused_with_what_is_missing(
    files: list[str], missing: str, tmp_path: Path
) -> None:
    checkpoint = write_checkpoint(tmp_path, 2)
    for name in files:
        (checkpoint / name).touch()
    with pytest.raises(
        ValueError, match=rf"'.*checkpoint-2' has no {re.escape(missing)} \(`save_only_model` writes none"
    ):
        require_optimizer(checkpoint)


def test_a_checkpoint_without_generators_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoint = write_checkpoint(tmp_path, 2)
    for name in ("optimizer.pt", "scheduler.pt", "rng_state_1.pth"):
        (checkpoint / name).touch()
    require_optimizer(checkpoint)
    assert not caplog.records
    (checkpoint / "rng_state_1.pth").unlink()
    require_optimizer(checkpoint)
    assert "no states of random generators: the resumed run will not be exactly the" in caplog.text


def test_an_invalidated_checkpoint_is_half_written_and_keeps_its_other_files(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, 2)
    invalidate(checkpoint)
    assert not is_whole(checkpoint)
    assert [path.name for path in checkpoint.iterdir()] == ["model.safetensors"]
    invalidate(checkpoint)
    invalidate(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


# While a trainer writes


class Watched(DWTTrainer):
    """Notes after each part of a save whether the checkpoint would be taken for a whole one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seen: list[bool] = []

    def _look(self, output_dir: str | None) -> None:
        assert output_dir is not None
        self.seen.append(is_whole(output_dir))

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        super().save_model(output_dir, _internal_call)
        self._look(output_dir)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        self._look(output_dir)

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        self._look(output_dir)


class SavesAsStock(Watched):
    """Writes over an earlier checkpoint, and makes room for it, as `Trainer` does."""

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        Trainer._save_checkpoint(self, model, trial)


def make_trainer(folder: Path, trainer_class: type[Watched] = Watched, **settings: Any) -> Watched:
    args = arguments(folder, save_strategy="steps", save_steps=2, max_steps=2, **settings)
    return trainer_class(
        make_student(), args, train_dataset=examples(), processing_class=tokenizer(), teacher=make_teacher()
    )


def test_a_checkpoint_is_whole_when_its_save_is_over(tmp_path: Path) -> None:
    make_trainer(tmp_path).train()
    assert is_whole(checkpoint_folder(tmp_path, 2))
    assert last_whole_checkpoint(tmp_path) == str(checkpoint_folder(tmp_path, 2))


@pytest.mark.parametrize("trainer_class", [Watched, SavesAsStock], ids=["ours", "stock"])
def test_a_checkpoint_that_is_written_over_is_half_written_until_the_end_unlike_with_the_stock_trainer(
    trainer_class: type[Watched], tmp_path: Path
) -> None:
    make_trainer(tmp_path).train()
    again = make_trainer(tmp_path, trainer_class)
    again.train()
    assert again.seen == [trainer_class is SavesAsStock] * 3
    assert is_whole(checkpoint_folder(tmp_path, 2))


class SetsClock(TrainerCallback):
    """Gives a folder a time of change just before each save."""

    def __init__(self, folder: Path, seconds_ahead: float) -> None:
        self.folder, self.seconds_ahead = folder, seconds_ahead

    def on_step_end(self, *_: Any, **__: Any) -> None:
        if self.folder.exists():
            os.utime(self.folder, (time.time() + self.seconds_ahead,) * 2)


@pytest.mark.parametrize("seconds_ahead", [0, 3600], ids=["coarse times", "a clock that went ahead"])
@pytest.mark.parametrize("trainer_class", [Watched, SavesAsStock], ids=["ours", "stock"])
def test_a_half_written_checkpoint_never_outlives_a_whole_one_unlike_with_the_stock_trainer(
    trainer_class: type[Watched], seconds_ahead: float, tmp_path: Path
) -> None:
    # A run died while it wrote step 6, and another one, from an earlier step, has come to step 2.
    half_written = write_checkpoint(tmp_path, 6, state=None)
    trainer = make_trainer(tmp_path, trainer_class, save_total_limit=1)
    trainer.add_callback(SetsClock(half_written, seconds_ahead))
    trainer.train()
    left = [path.name for path in tmp_path.glob("checkpoint-*")]
    assert left == (["checkpoint-2"] if trainer_class is Watched else ["checkpoint-6"])


def test_without_a_limit_half_written_checkpoints_stay(tmp_path: Path) -> None:
    half_written = write_checkpoint(tmp_path, 6, state=None)
    make_trainer(tmp_path).train()
    assert half_written.exists()


def test_room_is_made_by_half_written_checkpoints_alone(tmp_path: Path) -> None:
    for step, state in {2: STATE, 4: STATE, 6: None, 8: STATE[:5]}.items():
        write_checkpoint(tmp_path, step, state)
    make_room(tmp_path / "checkpoint-4", save_total_limit=1)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-2", "checkpoint-4"}
    assert not is_whole(tmp_path / "checkpoint-4")
    make_room(tmp_path / "nowhere" / "checkpoint-2", save_total_limit=1)


def test_a_save_of_the_model_alone_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, save_only_model=True)
    trainer.train()
    assert trainer.seen == [False]
    assert is_whole(checkpoint_folder(tmp_path, 2))


@pytest.mark.parametrize("by_path", [True, False], ids=["by path", "the last one"])
def test_a_run_is_not_resumed_from_a_save_of_the_model_alone(by_path: bool, tmp_path: Path) -> None:
    make_trainer(tmp_path, save_only_model=True).train()
    again = make_trainer(tmp_path)
    with pytest.raises(ValueError, match=r"has no optimizer\.pt and no scheduler\.pt"):
        again.train(resume_from_checkpoint=str(checkpoint_folder(tmp_path, 2)) if by_path else True)
    assert again.state.global_step == 0


def test_resuming_a_run_without_a_whole_checkpoint_is_refused_before_training(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    write_checkpoint(tmp_path, 1, state=None)
    with pytest.raises(ValueError, match=r"No valid checkpoint .* \(1 were half-written and are ignored\)"):
        trainer.train(resume_from_checkpoint=True)
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-7"))
    assert trainer.state.global_step == 0


def test_a_checkpoint_given_as_a_path_is_handed_on_as_text(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, 2)
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        (checkpoint / name).write_bytes(b"")
    # What asks whether it is text, as the check of DeepSpeed's number of ranks does, would pass a path by.
    assert checkpoint_to_resume(checkpoint, tmp_path) == str(checkpoint)
