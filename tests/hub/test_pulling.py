"""Teachers from the Hub: pinned to a commit, and refused before any work with what to do."""

import json
import os
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from hub_place import HF_HOME
from hub_server import OWNER_TOKEN, READER_TOKEN, Hub
from tiny_runs import WORDS, make_teacher, tokenizer
from trainer_runs import make_trainer
from transformers import BertConfig, BertModel, PreTrainedModel

from hf_dwt import from_weak_teacher, load_teacher
from hf_dwt.hub import access
from hf_dwt.hub.transience import Patience


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("teacher")
    make_teacher().save_pretrained(path)
    tokenizer().save_pretrained(path)
    return path


def save(folder: Path, model: PreTrainedModel) -> Path:
    model.save_pretrained(folder)
    return folder


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "_READING", Patience(attempts=2, first_wait=0.01, limit=0.5))


# Pinned


@pytest.mark.parametrize("how", ["branch", "tag", "commit", "short commit"])
def test_a_revision_becomes_a_full_commit_that_every_later_request_uses(how: str, hub: Hub, folder: Path) -> None:
    commit = hub.add("me/small", folder)
    hub.repositories["me/small"].tags["v1"] = commit
    revision = {"branch": "main", "tag": "v1", "commit": commit, "short commit": commit[:8]}[how]
    teacher = load_teacher("me/small", revision=revision)
    assert (teacher.origin.name, teacher.origin.revision, teacher.origin.commit) == ("me/small", revision, commit)
    assert teacher.model.name_or_path == "me/small"
    assert torch.equal(teacher.model.get_input_embeddings().weight, make_teacher().get_input_embeddings().weight)
    assert teacher.processing_class.get_vocab() == tokenizer().get_vocab()
    first, *later = [each.path for each in hub.requests]
    assert f"/resolve/{revision}/config.json" in first
    assert later
    assert all(commit in path or "/storage/" in path for path in later)


def test_a_moved_branch_is_another_commit_and_the_old_one_stays_what_it_was(hub: Hub, folder: Path) -> None:
    old = hub.add("me/small", folder)
    first = load_teacher("me/small")
    new = hub.add("me/small", {"notes.txt": b"1"})
    assert (first.origin.commit, load_teacher("me/small").origin.commit) == (old, new)
    assert load_teacher("me/small", revision=old).origin.commit == old


def test_a_teacher_may_be_in_a_subfolder(hub: Hub, folder: Path) -> None:
    contents = {f"small/{each.name}": each.read_bytes() for each in folder.iterdir()}
    commit = hub.add("me/models", contents)
    assert load_teacher("me/models", subfolder="small").origin.commit == commit
    assert load_teacher(folder.parent, subfolder=folder.name).kind == "masked"


def test_a_private_teacher_needs_its_token(hub: Hub, folder: Path) -> None:
    hub.add("me/private", folder, private=True)
    assert load_teacher("me/private", token=OWNER_TOKEN).kind == "masked"
    assert not any(OWNER_TOKEN in str(each.headers) for each in hub.requests if "/storage/" in each.path)


@pytest.mark.parametrize("by_commit", [True, False])
def test_the_cache_serves_offline_and_tells_the_same_commit(
    by_commit: bool, hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.add("me/small", folder)
    load_teacher("me/small")
    offline(monkeypatch)
    hub.requests.clear()
    teacher = load_teacher("me/small", revision=commit if by_commit else None)
    assert teacher.origin.commit == commit
    assert hub.requests == []


# Refused


def refusal(name: str, **settings: Any) -> str:
    with pytest.raises((OSError, ValueError)) as caught:
        load_teacher(name, **settings)
    return str(caught.value)


def test_each_reason_not_to_be_read_is_told_with_its_remedy(hub: Hub, folder: Path) -> None:
    hub.add("me/private", folder, private=True)
    hub.add("me/gated", folder, gated=True)
    hub.add("me/small", folder)
    cases = {
        "was not found, or is private: check the name": refusal("me/missing", token=OWNER_TOKEN),
        "pass `token` or run `hf auth login` if it is private": refusal("me/private", token=False),
        "may not be read with this token": refusal("me/private", token="hf_wrong"),
        "is gated: ask for access on its page": refusal("me/gated", token=READER_TOKEN),
        "has no such revision: pass a branch, tag": refusal("me/small", revision="nowhere", token=False),
    }
    for part, message in cases.items():
        assert part in message
        assert f"at {hub.url} " in message
        assert re.search(r"'me/\w+' \(revision '\w+'\)", message)
        assert "hf_wrong" not in message


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


def test_offline_without_a_cache_is_refused(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("me/small", folder)
    offline(monkeypatch)
    assert "is not in the cache, and HF_HUB_OFFLINE=1" in refusal("me/small")


def test_a_file_that_is_cut_short_is_named(hub: Hub, folder: Path) -> None:
    contents = {each.name: each.read_bytes() for each in folder.iterdir()}
    contents["model.safetensors"] = contents["model.safetensors"][:5000]
    commit = hub.add("me/small", contents)
    message = refusal("me/small")
    assert "has a file that is cut short or broken, model.safetensors" in message
    assert commit in message


def test_a_model_without_a_head_is_refused(hub: Hub, tmp_path: Path) -> None:
    model = BertModel(BertConfig(vocab_size=9, hidden_size=12, num_hidden_layers=1))
    hub.add("me/encoder", save(tmp_path, model))
    assert "is no masked or causal language model" in refusal("me/encoder")


def test_logits_narrower_than_the_vocabulary_are_refused(hub: Hub, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    model = make_teacher()
    model.resize_token_embeddings(20)
    hub.add("me/narrow", save(tmp_path, model))
    assert "predicts 20 tokens, but its tokenizer has" in refusal("me/narrow")


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, (str(HF_HOME / "evil"),)


def test_pickles_are_read_only_if_allowed_and_never_run(hub: Hub, folder: Path) -> None:
    contents = {each.name: each.read_bytes() for each in folder.iterdir() if each.suffix == ".json"}
    torch.save(make_teacher().state_dict(), HF_HOME / "good.bin")
    hub.add("me/pickled", {**contents, "pytorch_model.bin": (HF_HOME / "good.bin").read_bytes()})
    message = refusal("me/pickled")
    assert "has no safetensors. It has pytorch_model.bin, a pickle: `allow_pickle=True` reads" in message
    assert hub.count("GET", "pytorch_model") == 0
    assert load_teacher("me/pickled", allow_pickle=True).kind == "masked"
    hub.add("me/evil", {**contents, "pytorch_model.bin": pickle.dumps(Evil(), protocol=2)})
    assert "could not be loaded" in refusal("me/evil", allow_pickle=True)
    assert not (HF_HOME / "evil").exists()
    pickle.loads(pickle.dumps(Evil()))
    assert (HF_HOME / "evil").exists(), "it would have done harm"
    (HF_HOME / "evil").rmdir()


def test_code_is_not_run_unless_it_is_trusted_at_a_full_commit(hub: Hub, folder: Path) -> None:
    contents = {each.name: each.read_bytes() for each in folder.iterdir()}
    config = json.loads(contents["config.json"])
    config |= {"model_type": "ours", "auto_map": {"AutoConfig": "ours.Config", "AutoModelForMaskedLM": "ours.Model"}}
    code = f"import os\nos.mkdir({str(HF_HOME / 'ran')!r})\n" + (
        "from transformers import BertConfig, BertForMaskedLM\n"
        "class Config(BertConfig):\n    model_type = 'ours'\n"
        "class Model(BertForMaskedLM):\n    config_class = Config\n"
    )
    contents |= {"config.json": json.dumps(config).encode(), "ours.py": code.encode()}
    commit = hub.add("me/code", contents)
    message = refusal("me/code")
    assert "Nothing of it was run" in message
    assert hub.count("GET", "ours.py") == 0
    assert "pass the full commit that you have read" in refusal("me/code", trust_remote_code=True)
    assert "got 'main'" in refusal("me/code", trust_remote_code=True, revision="main")
    assert not (HF_HOME / "ran").exists()
    assert load_teacher("me/code", trust_remote_code=True, revision=commit).origin.commit == commit
    assert (HF_HOME / "ran").exists()
    (HF_HOME / "ran").rmdir()


def test_a_student_is_grown_from_the_commit_that_its_plan_names(hub: Hub, folder: Path) -> None:
    commit = hub.add("me/small", folder)
    _, report = from_weak_teacher("me/small", num_hidden_layers=2, output_report=True)
    assert report.plan.teacher == f"me/small@{commit}"
    assert all(commit in each.path or "/storage/" in each.path for each in hub.requests[1:])


def test_a_teacher_of_another_tokenizer_is_refused_by_its_tokens(hub: Hub, folder: Path, tmp_path: Path) -> None:
    contents = {each.name: each.read_bytes() for each in folder.iterdir()}
    word = WORDS[0]
    contents["tokenizer.json"] = contents["tokenizer.json"].replace(f'"{word}"'.encode(), b'"other"')
    hub.add("me/other", contents)
    with pytest.raises(ValueError, match=rf"differ at 1 tokens, first id \d+ \('other' vs '{word}'\)"):
        make_trainer(tmp_path, teacher="me/other")
