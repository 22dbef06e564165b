"""Teachers from a Hub that fails, and what is asked of it: only on the test Hub, which keeps a log."""

import json
import pickle
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from hub_server import OWNER_TOKEN, READER_TOKEN, Hub
from tiny_runs import make_teacher, tokenizer

from hf_dwt import from_weak_teacher, load_teacher
from hf_dwt.hub import access
from hf_dwt.hub.transience import Patience


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("teacher")
    make_teacher().save_pretrained(path)
    tokenizer().save_pretrained(path)
    return path


def contents_of(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.iterdir()}


@pytest.fixture
def impatient(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short, shorter where a limit is waited for again and again: on a busy machine any answer may take a second."""
    limit = 1.0 if "stall" in request.node.name else 3.0
    monkeypatch.setattr(access, "_READING", Patience(attempts=2, first_wait=0.01, limit=limit))


def refusal(name: str, **settings: Any) -> str:
    with pytest.raises((OSError, ValueError)) as caught:
        load_teacher(name, **settings)
    return str(caught.value)


# What is asked


@pytest.mark.parametrize("how", ["branch", "tag", "commit", "short commit"])
def test_the_commit_is_all_that_later_requests_ask_for(how: str, hub: Hub, folder: Path) -> None:
    commit = hub.add("me/small", folder)
    hub.repositories["me/small"].tags["v1"] = commit
    revision = {"branch": "main", "tag": "v1", "commit": commit, "short commit": commit[:8]}[how]
    load_teacher("me/small", revision=revision)
    first, *later = [each.path for each in hub.requests]
    assert f"/resolve/{revision}/config.json" in first
    assert later
    assert all(commit in path or "/storage/" in path for path in later)


def test_a_student_is_grown_from_what_is_asked_for_by_commit(hub: Hub, folder: Path) -> None:
    commit = hub.add("me/small", folder)
    from_weak_teacher("me/small", num_hidden_layers=2)
    assert all(commit in each.path or "/storage/" in each.path for each in hub.requests[1:])


def test_the_token_does_not_go_to_another_origin(hub: Hub, folder: Path) -> None:
    hub.add("me/private", folder, private=True)
    load_teacher("me/private", token=OWNER_TOKEN)
    assert not any(OWNER_TOKEN in str(each.headers) for each in hub.requests if "/storage/" in each.path)


def test_offline_nothing_is_asked(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("me/small", {**contents_of(folder), "README.md": b"A card", "onnx/model.onnx": b"Not for us"})
    load_teacher("me/small")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    load_teacher("me/small")
    assert hub.requests == []


def test_neither_pickles_nor_code_are_fetched_unasked(hub: Hub, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "ours", "auto_map": {"AutoModelForMaskedLM": "ours.Model"}}
    own = {"config.json": json.dumps(config).encode(), "ours.py": b"raise SystemExit"}
    hub.add("me/code", {**contents_of(folder), **own, "pytorch_model.bin": pickle.dumps(1)})
    with pytest.raises(ValueError, match="Nothing of it was run"):
        load_teacher("me/code")
    assert hub.count("GET", r"\.py|\.bin") == 0


def test_a_gated_teacher_is_told_with_its_remedy(hub: Hub, folder: Path) -> None:
    hub.add("me/gated", folder, gated=True)
    assert "is gated: ask for access on its page" in refusal("me/gated", token=READER_TOKEN)


# Faults


@pytest.mark.parametrize("kind", [503, "drop", "stall"])
@pytest.mark.usefixtures("impatient")
def test_a_hub_that_is_down_is_told_and_what_the_cache_holds(kind: int | str, hub: Hub, folder: Path) -> None:
    commit = hub.add("me/small", folder)
    hub.fail("HEAD", "/resolve/", kind, times=2)
    assert "cannot be reached" in refusal("me/small")
    load_teacher("me/small")
    hub.fail("HEAD", "/resolve/", kind, times=2)
    message = refusal("me/small")
    assert f"The cache holds commit {commit}" in message
    assert f"`revision={commit!r}` takes it" in message
    hub.fail("HEAD", "/resolve/", kind, times=99)
    assert load_teacher("me/small", revision=commit).origin.commit == commit


@pytest.mark.usefixtures("impatient")
def test_a_hub_that_fails_once_is_asked_again(hub: Hub, folder: Path) -> None:
    hub.add("me/small", folder)
    hub.fail("HEAD", "/resolve/", 503)
    assert load_teacher("me/small").kind == "masked"


@pytest.mark.parametrize("kind", [503, "drop", "stall"])
@pytest.mark.usefixtures("impatient")
def test_a_commit_that_is_in_the_cache_is_read_while_the_hub_is_down(kind: int | str, hub: Hub, folder: Path) -> None:
    commit = hub.add("me/small", {**contents_of(folder), "README.md": b"A card"})
    load_teacher("me/small")
    for method in ("GET", "HEAD", "POST"):
        hub.fail(method, "", kind, times=99)
    assert load_teacher("me/small", revision=commit).origin.commit == commit


@pytest.mark.parametrize("kind", ["drop", "stall"])
@pytest.mark.usefixtures("impatient")
def test_a_hub_that_is_lost_before_the_weights_are_there_is_told(kind: str, hub: Hub, folder: Path) -> None:
    hub.add("me/small", folder)
    hub.fail("GET", "/tree/", kind, times=99)
    assert "cannot be reached" in refusal("me/small")


def test_half_a_model_in_the_cache_is_no_model(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = hub.add("me/small", folder)
    huggingface_hub.hf_hub_download("me/small", "config.json")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    message = refusal("me/small")
    assert f"at commit {commit}" in message
    assert "is in the cache in part only" in message


@pytest.mark.parametrize("file", [r"/resolve/.*/tokenizer\.json", "/storage/"])
@pytest.mark.usefixtures("impatient")
def test_a_file_that_is_cut_on_the_way_is_fetched_whole_or_not_at_all(
    file: str, hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    hub.add("me/small", folder)
    hub.fail("GET", file, "cut")
    teacher = load_teacher("me/small")
    saved = make_teacher().state_dict()
    assert all((value == saved[name]).all() for name, value in teacher.model.state_dict().items())
    assert teacher.processing_class.get_vocab() == tokenizer().get_vocab()
