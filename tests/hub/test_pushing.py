"""Students to the Hub: checked before step 0, one commit, nothing leaked, nothing lost."""

import json
import logging
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hub_server import OWNER_TOKEN, READER_TOKEN, Hub
from tiny_runs import make_student, make_teacher, tokenizer, weights_of
from trainer_runs import make_trainer
from transformers import AutoModelForMaskedLM, AutoTokenizer

from hf_dwt import DWTTrainer, from_weak_teacher, load_teacher
from hf_dwt.hub.push import PushFailed
from hf_dwt.hub.transience import Patience

STUDENT = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md"}
STUDENT |= {"dwt_recipe.json", "training_args.json", "training_curves.png"}


@pytest.fixture
def settings() -> dict[str, Any]:
    return {"push_to_hub": True, "hub_model_id": "me/student", "hub_token": OWNER_TOKEN, "max_steps": 2}


def trainer_for(folder: Path, settings: dict[str, Any], **more: Any) -> DWTTrainer:
    trainer = make_trainer(folder / "student", **{"logging_steps": 1, **settings, **more})
    trainer.patience = Patience(attempts=3, first_wait=0.01, limit=1.0)
    return trainer


def titles(hub: Hub, branch: str = "main") -> list[str]:
    return [each.title for each in hub.repositories["me/student"].history(branch)]


def leaks(hub: Hub, *folders: Path) -> list[str]:
    """Where a token lies: on the Hub or in a file on disk."""
    tokens = [OWNER_TOKEN.encode(), READER_TOKEN.encode()]
    found = ["the Hub"] if any(token in hub.everything() for token in tokens) else []
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return found + [str(path) for path in files if any(token in path.read_bytes() for token in tokens)]


# Before step 0


@pytest.mark.parametrize("exists", [True, False])
def test_a_token_that_may_not_write_is_refused_before_training(
    exists: bool, hub: Hub, tmp_path: Path, settings: dict[str, Any]
) -> None:
    if exists:
        hub.add("me/student", {"a.txt": b"1"})
    for token in (READER_TOKEN, "hf_wrong"):
        with pytest.raises(PermissionError, match=r"'me/student'.* cannot be written to with this token") as caught:
            trainer_for(tmp_path, {**settings, "hub_token": token})
        assert token not in str(caught.value)
    assert hub.count("POST", "/commit/") == 0


# The student


def test_the_final_student_is_one_commit_and_comes_back_as_it_was(
    each_transfer: Hub, tmp_path: Path, settings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    trainer = trainer_for(tmp_path, settings, hub_private_repo=True)
    trainer.train()
    assert titles(each_transfer) == ["End of training", "initial commit"]
    repository = each_transfer.repositories["me/student"]
    assert repository.private
    assert set(repository.resolve("main").files) == STUDENT
    commit = repository.branches["main"]
    pulled = AutoModelForMaskedLM.from_pretrained("me/student", revision=commit, token=OWNER_TOKEN)
    trained = weights_of(trainer.model)
    assert all(torch.equal(value, trained[name]) for name, value in weights_of(pulled).items())
    words = AutoTokenizer.from_pretrained("me/student", revision=commit, token=OWNER_TOKEN)
    assert words.get_vocab() == tokenizer().get_vocab()
    assert OWNER_TOKEN not in caplog.text
    assert leaks(each_transfer, tmp_path) == []
    assert trainer.args.hub_token == OWNER_TOKEN


def test_a_token_on_disk_would_be_noticed(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "args.bin").write_bytes(b"\0" + OWNER_TOKEN.encode())
    hub.add("me/student", {"a.txt": OWNER_TOKEN.encode()})
    assert leaks(hub, tmp_path) == ["the Hub", str(tmp_path / "args.bin")]


def test_pushing_again_what_is_there_makes_no_commit(hub: Hub, tmp_path: Path, settings: dict[str, Any]) -> None:
    trainer = trainer_for(tmp_path, settings)
    trainer.train()
    again = trainer.push_to_hub()
    assert again.oid == hub.repositories["me/student"].branches["main"]
    assert len(titles(hub)) == 2


def test_without_the_argument_pushing_is_a_call(hub: Hub, tmp_path: Path, settings: dict[str, Any]) -> None:
    trainer = trainer_for(tmp_path, {**settings, "push_to_hub": False})
    trainer.train()
    assert not hub.repositories
    future = trainer.push_to_hub("By hand", blocking=False, tags=["toy"], license="mit")
    assert future.result(30).oid == hub.repositories["me/student"].branches["main"]
    assert titles(hub)[0] == "By hand"


def test_a_branch_that_is_missing_is_made(hub: Hub, tmp_path: Path, settings: dict[str, Any]) -> None:
    trainer_for(tmp_path, settings, hub_revision="try/1").train()
    assert titles(hub) == ["initial commit"]
    assert titles(hub, "try/1") == ["End of training", "initial commit"]


def test_every_save_pushes_students_and_never_optimisers(hub: Hub, tmp_path: Path, settings: dict[str, Any]) -> None:
    saving = {"hub_strategy": "every_save", "save_strategy": "steps", "save_steps": 1, "hub_always_push": True}
    trainer_for(tmp_path, settings, **saving, save_total_limit=1).train()
    assert titles(hub)[:-1] == ["End of training", "Training in progress, step 2", "Training in progress, step 1"]
    paths = {path for c in hub.repositories["me/student"].commits.values() for path in c.files}
    assert paths == STUDENT
    assert leaks(hub, tmp_path) == []
    assert not list(tmp_path.rglob("_push_*"))


@pytest.mark.parametrize(
    ("strategy", "folder"), [("checkpoint", "last-checkpoint"), ("all_checkpoints", "checkpoint-1")]
)
def test_a_pushed_checkpoint_can_be_resumed_from(
    strategy: str, folder: str, hub: Hub, tmp_path: Path, settings: dict[str, Any]
) -> None:
    saving = {"save_strategy": "steps", "save_steps": 1, "optim": "adamw_torch", "max_steps": 1, "weighting_steps": 2}
    trainer_for(tmp_path, settings, **saving, hub_strategy=strategy).train()
    contents = hub.contents("me/student")
    assert f"{folder}/optimizer.pt" in contents
    assert not any(path.endswith("training_args.bin") for path in contents)
    assert leaks(hub, tmp_path) == []
    for path, content in contents.items():
        (tmp_path / "pulled" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pulled" / path).write_bytes(content)
    resumed = trainer_for(tmp_path, {**settings, **saving, "push_to_hub": False, "max_steps": 2})
    resumed.train(resume_from_checkpoint=str(tmp_path / "pulled" / folder))
    assert resumed.state.global_step == 2


def test_a_token_in_a_file_stops_the_push(hub: Hub, tmp_path: Path, settings: dict[str, Any]) -> None:
    trainer = trainer_for(tmp_path, settings)
    (tmp_path / "student" / "notes.txt").write_text(f"my token is {OWNER_TOKEN}")
    with pytest.raises(PushFailed, match=r"notes\.txt holds your Hub token"):
        trainer.train()
    assert hub.count("POST", "/commit/") == 0


# Failures


@pytest.mark.parametrize("kind", [429, 503, "drop", "stall", "lose"])
def test_what_passes_by_itself_is_tried_again_and_lands_once(
    kind: int | str, each_transfer: Hub, tmp_path: Path, settings: dict[str, Any]
) -> None:
    trainer = trainer_for(tmp_path, settings)
    each_transfer.fail("POST", "/commit/", kind)
    trainer.train()
    assert titles(each_transfer) == ["End of training", "initial commit"]
    assert each_transfer.count("POST", "/commit/") == (1 if kind == "lose" else 2)


@pytest.mark.parametrize("status", [401, 403, 404, 412])
def test_what_stays_is_not_tried_again_and_the_student_is_on_disk(
    status: int, hub: Hub, tmp_path: Path, settings: dict[str, Any]
) -> None:
    trainer = trainer_for(tmp_path, settings)
    hub.fail("POST", "/commit/", status, times=9)
    with pytest.raises(
        PushFailed, match=r"could not be pushed to 'me/student' \(branch 'main'\) at http://127"
    ) as caught:
        trainer.train()
    assert hub.count("POST", "/commit/") == 1
    assert (tmp_path / "student" / "model.safetensors").is_file()
    assert OWNER_TOKEN not in str(caught.value)


def test_the_command_that_is_given_finishes_the_job(hub: Hub, tmp_path: Path, settings: dict[str, Any]) -> None:
    trainer = trainer_for(tmp_path, settings, save_strategy="steps", save_steps=1, hub_strategy="end")
    hub.fail("POST", "/commit/", 503, times=3)
    with pytest.raises(PushFailed) as caught:
        trainer.train()
    assert hub.count("POST", "/commit/") == 3
    assert titles(hub) == ["initial commit"]
    program, *arguments = shlex.split(str(caught.value).splitlines()[-1])
    command = [str(Path(sys.executable).parent / program), *arguments, "--token", OWNER_TOKEN]
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin"}
    subprocess.run(command, env=environment, check=True, timeout=60, capture_output=True)
    assert set(hub.contents("me/student")) == STUDENT


def test_a_push_in_the_background_that_fails_is_told_at_once_and_raised_at_the_end(
    hub: Hub, tmp_path: Path, settings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    saving = {"hub_strategy": "every_save", "save_strategy": "steps", "save_steps": 1, "hub_always_push": True}
    trainer = trainer_for(tmp_path, settings, **saving)
    hub.fail("POST", "/commit/", 403)
    with pytest.raises(PushFailed, match=r"The final student was pushed, but 1 pushes during training were not"):
        trainer.train()
    assert "A push in the background has failed" in caplog.text
    assert titles(hub)[0] == "End of training"


# What goes with it


def test_record_and_card_tell_what_was_done(hub: Hub, tmp_path: Path, settings: dict[str, Any]) -> None:
    make_teacher().save_pretrained(tmp_path / "teacher")
    tokenizer().save_pretrained(tmp_path / "teacher")
    commit = hub.add("me/small", tmp_path / "teacher")
    teacher = load_teacher("me/small")
    student = from_weak_teacher(teacher, hidden_size=24, num_hidden_layers=2)
    trainer = trainer_for(
        tmp_path, settings, teacher=teacher, model=student, eval_dataset=make_trainer(tmp_path).train_dataset
    )
    trainer.train()
    trainer.evaluate()
    trainer.push_to_hub(dataset_tags="me/words", license="apache-2.0", language="en")
    contents = hub.contents("me/student")
    record = json.loads(contents["dwt_recipe.json"])
    assert record["schema_version"] == 1
    assert record["teacher"]["commit"] == commit
    assert record["teacher"]["num_parameters"] == make_teacher().num_parameters()
    assert record["student"]["growth"]["teacher"] == f"me/small@{commit}"
    assert record["training"]["steps"] == 2
    assert record["training"]["tokens"] > 0
    assert 0 < record["training"]["teacher_share"] < 1
    assert record["vocabulary"]["size"] == len(tokenizer())
    assert json.loads(contents["training_args.json"])["max_steps"] == 2
    assert "growth_plan.json" in contents
    assert contents["training_curves.png"].startswith(b"\x89PNG")

    card = contents["README.md"].decode()
    _, metadata, text = card.split("---\n", 2)
    data = yaml.safe_load(metadata)
    assert (data["base_model"], data["base_model_relation"]) == ("me/small", "finetune")
    assert (data["library_name"], data["pipeline_tag"]) == ("transformers", "fill-mask")
    assert (data["license"], data["language"], data["datasets"]) == ("apache-2.0", "en", ["me/words"])
    metrics = {each["type"]: each["value"] for each in data["model-index"][0]["results"][0]["metrics"]}
    assert metrics["loss"] == pytest.approx(record["results"]["eval_loss"], abs=1e-6)
    assert "Before training it was equal to the teacher (largest difference" in text
    for part in (commit, "2 optimiser steps", "grown from its teacher", "the teacher's loss on the same", "| 50% |"):
        assert part in text
    for part in ("]()", "unknown", "None", "nan", str(tmp_path)):
        assert part not in card


def test_a_student_alone_at_random_says_so(hub: Hub, tmp_path: Path, settings: dict[str, Any]) -> None:
    trainer_for(tmp_path, settings, teacher=None, model=make_student()).train()
    card = hub.contents("me/student")["README.md"].decode()
    assert "trained without a teacher" in card
    assert "started from random weights" in card
    assert "It was not evaluated in this run" in card
    assert "base_model" not in card


def test_a_branch_that_moves_during_training_is_noticed_on_resuming(hub: Hub, tmp_path: Path) -> None:
    make_teacher().save_pretrained(tmp_path / "teacher")
    tokenizer().save_pretrained(tmp_path / "teacher")
    old = hub.add("me/small", tmp_path / "teacher")
    saving = {"save_strategy": "steps", "save_steps": 1, "weighting_steps": 2}
    trainer_for(tmp_path, {"max_steps": 1}, teacher="me/small", **saving).train()
    new = hub.add("me/small", {"notes.txt": b"moved"})
    moved = trainer_for(tmp_path, {"max_steps": 2}, teacher="me/small", **saving)
    assert moved.teacher is not None
    assert moved.teacher.origin.commit == new
    with pytest.raises(ValueError, match=f"was taught by commit {old}, this run has {new}"):
        moved.train(resume_from_checkpoint=True)
    same = trainer_for(tmp_path, {"max_steps": 2}, teacher=load_teacher("me/small", revision=old), **saving)
    same.train(resume_from_checkpoint=True)
    assert same.state.global_step == 2
