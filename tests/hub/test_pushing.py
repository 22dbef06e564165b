"""Students to the Hub: one commit, nothing leaked; the cards and records that go with them."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hub_place import IS_REAL
from temporary_repositories import Repositories
from tiny_runs import build, make_student, make_teacher, tokenizer, weights_of
from trainer_runs import make_trainer
from transformers import AutoModelForMaskedLM, AutoTokenizer

from hf_dwt import DWTTrainer, from_weak_teacher, load_teacher
from hf_dwt.hub.push import PushFailed
from hf_dwt.hub.transience import Patience

STUDENT = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md"}
STUDENT |= {"dwt_recipe.json", "training_args.json", "training_curves.png"}


@pytest.fixture
def settings(place: Repositories) -> dict[str, Any]:
    where = {"hub_model_id": place.name("student"), "hub_private_repo": IS_REAL, "hub_token": place.token}
    return {"push_to_hub": True, "max_steps": 2, **where}


def trainer_for(folder: Path, settings: dict[str, Any], **more: Any) -> DWTTrainer:
    trainer = make_trainer(folder / "student", **{"logging_steps": 1, **settings, **more})
    trainer.patience = Patience() if IS_REAL else Patience(attempts=3, first_wait=0.01, limit=5.0)
    return trainer


def leaks(place: Repositories, *folders: Path) -> list[str]:
    """Where the token lies: on the Hub or in a file on disk."""
    token = place.token.encode()
    found = ["the Hub"] if token in place.everything() else []
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return found + [str(path) for path in files if token in path.read_bytes()]


def test_the_final_student_is_one_commit_and_comes_back_as_it_was(
    each_way: str, place: Repositories, tmp_path: Path, settings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    trainer = trainer_for(tmp_path, settings, hub_private_repo=True)
    trainer.train()
    assert place.titles("student") == ["End of training", "initial commit"]
    assert place.api.model_info(place.name("student")).private
    assert place.contents("student").keys() == STUDENT
    commit = place.head("student")
    pulled = AutoModelForMaskedLM.from_pretrained(place.name("student"), revision=commit, token=place.token)
    trained = weights_of(trainer.model)
    assert all(torch.equal(value, trained[name]) for name, value in weights_of(pulled).items())
    words = AutoTokenizer.from_pretrained(place.name("student"), revision=commit, token=place.token)
    assert words.get_vocab() == tokenizer().get_vocab()
    assert place.token not in caplog.text
    assert leaks(place, tmp_path) == []
    assert trainer.args.hub_token == place.token


@pytest.mark.usefixtures("hub")  # no real token is put anywhere
def test_a_token_on_disk_would_be_noticed(place: Repositories, tmp_path: Path) -> None:
    (tmp_path / "args.bin").write_bytes(b"\0" + place.token.encode())
    place.add("student", {"a.txt": place.token.encode()})
    assert leaks(place, tmp_path) == ["the Hub", str(tmp_path / "args.bin")]


def test_pushing_again_what_is_there_makes_no_commit(
    place: Repositories, tmp_path: Path, settings: dict[str, Any]
) -> None:
    trainer = trainer_for(tmp_path, settings)
    trainer.train()
    again = trainer.push_to_hub()
    assert again.oid == place.head("student")
    assert len(place.titles("student")) == 2


def test_without_the_argument_pushing_is_a_call(place: Repositories, tmp_path: Path, settings: dict[str, Any]) -> None:
    trainer = trainer_for(tmp_path, {**settings, "push_to_hub": False})
    trainer.train()
    assert not place.exists("student")
    future = trainer.push_to_hub("By hand", blocking=False, tags=["toy"], license="mit")
    assert future.result(30).oid == place.head("student")
    assert place.titles("student")[0] == "By hand"


def test_a_branch_that_is_missing_is_made(place: Repositories, tmp_path: Path, settings: dict[str, Any]) -> None:
    trainer_for(tmp_path, settings, hub_revision="try/1").train()
    assert place.titles("student") == ["initial commit"]
    assert place.titles("student", "try/1") == ["End of training", "initial commit"]


def test_every_save_pushes_students_and_never_optimisers(
    place: Repositories, tmp_path: Path, settings: dict[str, Any]
) -> None:
    saving = {"hub_strategy": "every_save", "save_strategy": "steps", "save_steps": 1, "hub_always_push": True}
    trainer_for(tmp_path, settings, **saving, save_total_limit=1).train()
    assert place.titles("student")[:-1] == [
        "End of training",
        "Training in progress, step 2",
        "Training in progress, step 1",
    ]
    for each in place.api.list_repo_commits(place.name("student"))[:-1]:
        # Card and curves come at the end.
        assert (
            STUDENT - {"README.md", "training_curves.png"}
            <= place.contents("student", each.commit_id).keys()
            <= STUDENT
        )
    assert leaks(place, tmp_path) == []
    assert not list(tmp_path.rglob("_push_*"))


@pytest.mark.parametrize(
    ("strategy", "folder"), [("checkpoint", "last-checkpoint"), ("all_checkpoints", "checkpoint-1")]
)
def test_a_pushed_checkpoint_can_be_resumed_from(
    strategy: str, folder: str, place: Repositories, tmp_path: Path, settings: dict[str, Any]
) -> None:
    saving = {"save_strategy": "steps", "save_steps": 1, "optim": "adamw_torch", "max_steps": 1, "weighting_steps": 2}
    trainer_for(tmp_path, settings, **saving, hub_strategy=strategy).train()
    contents = place.contents("student")
    assert f"{folder}/optimizer.pt" in contents
    assert not any(path.endswith("training_args.bin") for path in contents)
    assert leaks(place, tmp_path) == []
    for path, content in contents.items():
        (tmp_path / "pulled" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pulled" / path).write_bytes(content)
    resumed = trainer_for(tmp_path, {**settings, **saving, "push_to_hub": False, "max_steps": 2})
    resumed.train(resume_from_checkpoint=str(tmp_path / "pulled" / folder))
    assert resumed.state.global_step == 2


def test_a_token_in_a_file_stops_the_push(place: Repositories, tmp_path: Path, settings: dict[str, Any]) -> None:
    trainer = trainer_for(tmp_path, settings)
    (tmp_path / "student" / "notes.txt").write_text(f"my token is {place.token}")
    with pytest.raises(PushFailed, match=r"notes\.txt holds your Hub token"):
        trainer.train()
    assert place.titles("student") == ["initial commit"]


# What goes with it


def test_record_and_card_tell_what_was_done(place: Repositories, tmp_path: Path, settings: dict[str, Any]) -> None:
    make_teacher().save_pretrained(tmp_path / "teacher")
    tokenizer().save_pretrained(tmp_path / "teacher")
    commit = place.add("small", tmp_path / "teacher")
    teacher = load_teacher(place.name("small"))
    student = from_weak_teacher(teacher, hidden_size=24, num_hidden_layers=2)
    trainer = trainer_for(
        tmp_path, settings, teacher=teacher, model=student, eval_dataset=make_trainer(tmp_path).train_dataset
    )
    trainer.train()
    trainer.evaluate()
    trainer.push_to_hub(dataset_tags="me/words", license="apache-2.0", language="en")
    contents = place.contents("student")
    record = json.loads(contents["dwt_recipe.json"])
    assert record["schema_version"] == 1
    assert record["teacher"]["commit"] == commit
    assert record["teacher"]["num_parameters"] == make_teacher().num_parameters()
    assert record["student"]["growth"]["teacher"] == place.name("small") + f"@{commit}"
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
    assert (data["base_model"], data["base_model_relation"]) == (place.name("small"), "finetune")
    assert (data["library_name"], data["pipeline_tag"]) == ("transformers", "fill-mask")
    assert (data["license"], data["language"], data["datasets"]) == ("apache-2.0", "en", ["me/words"])
    metrics = {each["type"]: each["value"] for each in data["model-index"][0]["results"][0]["metrics"]}
    assert metrics["loss"] == pytest.approx(record["results"]["eval_loss"], abs=1e-6)
    assert "Before training it was equal to the teacher (largest difference" in text
    for part in (commit, "2 optimiser steps", "grown from its teacher", "the teacher's loss on the same", "| 50% |"):
        assert part in text
    for part in ("]()", "unknown", "None", "nan", str(tmp_path)):
        assert part not in card


def test_a_student_alone_at_random_says_so(place: Repositories, tmp_path: Path, settings: dict[str, Any]) -> None:
    trainer_for(tmp_path, settings, teacher=None, model=make_student()).train()
    card = place.contents("student")["README.md"].decode()
    assert "trained without a teacher" in card
    assert "started from random weights" in card
    assert "It was not evaluated in this run" in card
    assert "base_model" not in card


def test_a_branch_that_moves_during_training_is_noticed_on_resuming_if_the_weights_are_others(
    place: Repositories, tmp_path: Path
) -> None:
    make_teacher().save_pretrained(tmp_path / "teacher")
    tokenizer().save_pretrained(tmp_path / "teacher")
    old = place.add("small", tmp_path / "teacher")
    saving = {"save_strategy": "steps", "save_steps": 1, "weighting_steps": 3}
    trainer_for(tmp_path, {"max_steps": 1}, teacher=place.name("small"), **saving).train()
    new = place.add("small", {"notes.txt": b"moved"})
    same = trainer_for(tmp_path, {"max_steps": 2}, teacher=place.name("small"), **saving)
    assert same.teacher is not None
    assert same.teacher.origin.commit == new
    same.train(resume_from_checkpoint=True)
    assert same.state.global_step == 2
    build("masked", hidden_size=12, num_layers=1, seed=9).save_pretrained(tmp_path / "teacher")
    place.add("small", tmp_path / "teacher")
    other = trainer_for(tmp_path, {"max_steps": 3}, teacher=place.name("small"), **saving)
    with pytest.raises(ValueError, match=rf"its branch has moved: `load_teacher\(..., revision='{new}'\)`"):
        other.train(resume_from_checkpoint=True)
    first = trainer_for(tmp_path, {"max_steps": 3}, teacher=load_teacher(place.name("small"), revision=old), **saving)
    first.train(resume_from_checkpoint=True)
    assert first.state.global_step == 3
