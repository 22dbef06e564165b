"""Students to a Hub that refuses or fails: told before step 0, tried again with a bound, nothing lost."""

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hub_server import OWNER_TOKEN, READER_TOKEN, Hub
from trainer_runs import make_trainer

from hf_dwt import DWTTrainer
from hf_dwt.hub import access
from hf_dwt.hub.push import PushFailed
from hf_dwt.hub.transience import Patience

STUDENT = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md"}
STUDENT |= {"dwt_recipe.json", "training_args.json", "training_curves.png"}


@pytest.fixture
def settings() -> dict[str, Any]:
    return {"push_to_hub": True, "hub_model_id": "me/student", "hub_token": OWNER_TOKEN, "max_steps": 2}


def trainer_for(folder: Path, settings: dict[str, Any], **more: Any) -> DWTTrainer:
    trainer = make_trainer(folder / "student", **{"logging_steps": 1, **settings, **more})
    trainer.patience = Patience(attempts=3, first_wait=0.01, limit=3.0)
    return trainer


def titles(hub: Hub, branch: str = "main") -> list[str]:
    return [each.title for each in hub.repositories["me/student"].history(branch)]


def finish_by_hand(told: Exception, hub: Hub, folder: Path) -> None:
    """Run the command that a message ends with."""
    program, *arguments = shlex.split(str(told).splitlines()[-1])
    command = [str(Path(sys.executable).parent / program), *arguments, "--token", OWNER_TOKEN]
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "home"), "PATH": "/usr/bin:/bin"}
    subprocess.run(command, env=environment, check=True, timeout=60, capture_output=True)


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


@pytest.mark.parametrize("kind", [429, 503, "drop", "stall"])
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/api/repos/create"), ("GET", "/auth-check"), ("POST", "/branch/")]
)
def test_what_is_asked_before_training_is_asked_again_and_ends_in_bounded_time(
    method: str,
    path: str,
    kind: int | str,
    hub: Hub,
    tmp_path: Path,
    settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Short only where a limit is waited for: on a busy machine any answer may take a second.
    patience = Patience(attempts=2, first_wait=0.01, limit=1.0 if kind == "stall" else 30.0)
    monkeypatch.setattr(DWTTrainer, "patience", patience)
    monkeypatch.setattr(access, "_READING", patience)
    hub.fail(method, path, kind)
    trainer_for(tmp_path, settings, hub_revision="try")
    hub.fail(method, path, kind, times=99)
    with pytest.raises(OSError, match=r"'me/student'.* at http://127.* Try again when the Hub answers") as caught:
        trainer_for(tmp_path, settings, hub_revision="other")
    assert not isinstance(caught.value, PermissionError)
    assert hub.count("POST", "/commit/") == 0


def test_an_answer_that_is_no_answer_is_told(hub: Hub, tmp_path: Path, settings: dict[str, Any]) -> None:
    hub.fail("POST", "/api/repos/create", 200, times=9)
    with pytest.raises(OSError, match=r"it has answered what the client cannot read \(KeyError: 'url'\)"):
        trainer_for(tmp_path, settings)


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
    finish_by_hand(caught.value, hub, tmp_path)
    assert set(hub.contents("me/student")) == STUDENT


def test_the_command_leaves_out_what_holds_the_token_and_what_is_not_the_students(
    hub: Hub, tmp_path: Path, settings: dict[str, Any]
) -> None:
    trainer = trainer_for(tmp_path, settings)
    (tmp_path / "student" / "alone-equal-steps").mkdir()
    (tmp_path / "student" / "alone-equal-steps" / "model.safetensors").write_text("of a twin")
    (tmp_path / "student" / "notes.txt").write_text(f"my token is {OWNER_TOKEN}")
    with pytest.raises(PushFailed, match=r"notes\.txt holds your Hub token") as caught:
        trainer.train()
    finish_by_hand(caught.value, hub, tmp_path)
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
