"""Teachers from the Hub: pinned to a commit, and refused before any work with what to do."""

import json
import os
import pickle
import re
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import safetensors.torch
import torch
from hub_place import HF_HOME
from temporary_repositories import Repositories
from tiny_runs import WORDS, make_teacher, tokenizer
from trainer_runs import make_trainer
from transformers import BertConfig, BertModel, PreTrainedModel

from hf_dwt import from_weak_teacher, load_teacher
from hf_dwt.hub.access import fetch_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("teacher")
    make_teacher().save_pretrained(path)
    tokenizer().save_pretrained(path)
    return path


def save(folder: Path, model: PreTrainedModel) -> Path:
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def offline(place: Repositories, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Call it to go offline, until the test is over."""
    with monkeypatch.context() as patch:
        yield lambda: patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


# Pinned


@pytest.mark.parametrize("how", ["branch", "tag", "commit", "short commit"])
def test_a_revision_becomes_a_full_commit(how: str, place: Repositories, folder: Path) -> None:
    commit = place.add("small", folder)
    name = place.name("small")
    place.api.create_tag(name, tag="v1", revision=commit)
    revision = {"branch": "main", "tag": "v1", "commit": commit, "short commit": commit[:8]}[how]
    teacher = load_teacher(name, revision=revision)
    assert (teacher.origin.name, teacher.origin.revision, teacher.origin.commit) == (name, revision, commit)
    assert teacher.model.name_or_path == name
    assert torch.equal(teacher.model.get_input_embeddings().weight, make_teacher().get_input_embeddings().weight)
    assert teacher.processing_class.get_vocab() == tokenizer().get_vocab()


def test_a_moved_branch_is_another_commit_and_the_old_one_stays_what_it_was(place: Repositories, folder: Path) -> None:
    old = place.add("small", folder)
    first = load_teacher(place.name("small"))
    new = place.add("small", {"notes.txt": b"1"})
    assert (first.origin.commit, load_teacher(place.name("small")).origin.commit) == (old, new)
    assert load_teacher(place.name("small"), revision=old).origin.commit == old


def test_a_teacher_may_be_in_a_subfolder(place: Repositories, folder: Path) -> None:
    contents = {f"small/{each.name}": each.read_bytes() for each in folder.iterdir()}
    commit = place.add("models", contents)
    assert load_teacher(place.name("models"), subfolder="small").origin.commit == commit
    assert load_teacher(folder.parent, subfolder=folder.name).kind == "masked"


def test_a_private_teacher_needs_its_token(place: Repositories, folder: Path) -> None:
    place.add("private", folder, private=True)
    assert load_teacher(place.name("private"), token=place.token).kind == "masked"


@pytest.mark.parametrize("by_commit", [True, False])
def test_the_cache_serves_offline_and_tells_the_same_commit(
    by_commit: bool, place: Repositories, folder: Path, offline: Callable[[], None]
) -> None:
    commit = place.add("small", folder)
    load_teacher(place.name("small"))
    offline()
    teacher = load_teacher(place.name("small"), revision=commit if by_commit else None)
    assert teacher.origin.commit == commit


# Refused


def refusal(name: str, **settings: Any) -> str:
    with pytest.raises((OSError, ValueError)) as caught:
        load_teacher(name, **settings)
    return str(caught.value)


def test_each_reason_not_to_be_read_is_told_with_its_remedy(place: Repositories, folder: Path) -> None:
    place.add("private", folder, private=True)
    place.add("small", folder)
    missing, private, small = map(place.name, ("missing", "private", "small"))
    cases = {
        "was not found, or is private: check the name": refusal(missing, token=place.token),
        "pass `token` or run `hf auth login` if it is private": refusal(private, token=False),
        "may not be read with this token": refusal(private, token="hf_wrong"),
        "has no such revision: pass a branch, tag": refusal(small, revision="nowhere", token=place.token),
    }
    for part, message in cases.items():
        assert part in message
        assert f"at {place.url} " in message
        assert re.search(r"'[\w-]+/[\w-]+' \(revision '\w+'\)", message)
        assert "hf_wrong" not in message


def test_offline_without_a_cache_is_refused(place: Repositories, folder: Path, offline: Callable[[], None]) -> None:
    place.add("small", folder)
    offline()
    assert "is not in the cache, and HF_HUB_OFFLINE=1" in refusal(place.name("small"))


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_file_that_is_cut_short_is_named(name: str, place: Repositories, folder: Path) -> None:
    contents = {each.name: each.read_bytes() for each in folder.iterdir()}
    contents[name] = contents[name][: len(contents[name]) // 2]
    commit = place.add("small", contents)
    message = refusal(place.name("small"))
    assert f"has a file that is cut short or broken, {name}" in message
    assert commit in message


def test_a_model_without_a_head_is_refused(place: Repositories, tmp_path: Path) -> None:
    model = BertModel(BertConfig(vocab_size=9, hidden_size=12, num_hidden_layers=1))
    place.add("encoder", save(tmp_path, model))
    assert "is no masked or causal language model" in refusal(place.name("encoder"))


ADAPTER = {
    "adapter_config.json": b'{"peft_type": "LORA", "base_model_name_or_path": "me/base"}',
    "adapter_model.safetensors": safetensors.torch.save({"weight": torch.ones(1)}),
}


@pytest.mark.parametrize("take", [load_teacher, partial(from_weak_teacher, num_hidden_layers=2)])
@pytest.mark.parametrize("left_out", ["nothing", "adapter_model.safetensors"])
def test_an_adapter_beside_its_bases_configuration_is_refused_with_what_to_do(
    left_out: str, take: Callable[[str], Any], place: Repositories, folder: Path
) -> None:
    contents = {**ADAPTER, "config.json": (folder / "config.json").read_bytes()}
    contents.pop(left_out, None)
    place.add("adapter", contents)
    with pytest.raises(OSError, match="an adapter of peft, no whole model: put it on its base with `PeftModel"):
        take(place.name("adapter"))


def test_an_adapter_in_the_cache_is_no_whole_model_offline(
    place: Repositories, folder: Path, offline: Callable[[], None]
) -> None:
    place.add("adapter", {**ADAPTER, "config.json": (folder / "config.json").read_bytes()})
    huggingface_hub.snapshot_download(place.name("adapter"))
    offline()
    assert "is in the cache in part only, and HF_HUB_OFFLINE=1" in refusal(place.name("adapter"))


def test_an_adapter_beside_a_whole_model_comes_with_it(place: Repositories, folder: Path) -> None:
    commit = place.add("both", {**ADAPTER, **{each.name: each.read_bytes() for each in folder.iterdir()}})
    fetched = fetch_model(place.name("both"), commit, place.token)
    assert {*ADAPTER, "model.safetensors"} <= {each.name for each in fetched.iterdir()}


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, (str(HF_HOME / "evil"),)


def test_logits_narrower_than_the_vocabulary_are_refused(place: Repositories, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    model = make_teacher()
    model.resize_token_embeddings(20)
    place.add("narrow", save(tmp_path, model))
    assert "predicts 20 tokens, but its tokenizer has" in refusal(place.name("narrow"))


def test_pickles_are_read_only_if_allowed_and_never_run(place: Repositories, folder: Path) -> None:
    contents = {each.name: each.read_bytes() for each in folder.iterdir() if each.suffix == ".json"}
    torch.save(make_teacher().state_dict(), HF_HOME / "good.bin")
    place.add("pickled", {**contents, "pytorch_model.bin": (HF_HOME / "good.bin").read_bytes()})
    message = refusal(place.name("pickled"))
    assert "has no safetensors. It has pytorch_model.bin, a pickle: `allow_pickle=True` reads" in message
    assert load_teacher(place.name("pickled"), allow_pickle=True).kind == "masked"
    place.add("evil", {**contents, "pytorch_model.bin": pickle.dumps(Evil(), protocol=2)})
    assert "could not be loaded" in refusal(place.name("evil"), allow_pickle=True)
    assert not (HF_HOME / "evil").exists()
    pickle.loads(pickle.dumps(Evil()))
    assert (HF_HOME / "evil").exists(), "it would have done harm"
    (HF_HOME / "evil").rmdir()


def test_code_is_not_run_unless_it_is_trusted_at_a_full_commit(place: Repositories, folder: Path) -> None:
    contents = {each.name: each.read_bytes() for each in folder.iterdir()}
    config = json.loads(contents["config.json"])
    config |= {"model_type": "ours", "auto_map": {"AutoConfig": "ours.Config", "AutoModelForMaskedLM": "ours.Model"}}
    code = f"import os\nos.mkdir({str(HF_HOME / 'ran')!r})\n" + (
        "from transformers import BertConfig, BertForMaskedLM\n"
        "class Config(BertConfig):\n    model_type = 'ours'\n"
        "class Model(BertForMaskedLM):\n    config_class = Config\n"
    )
    contents |= {"config.json": json.dumps(config).encode(), "ours.py": code.encode()}
    commit = place.add("code", contents)
    message = refusal(place.name("code"))
    assert "Nothing of it was run" in message
    assert "pass the full commit that you have read" in refusal(place.name("code"), trust_remote_code=True)
    assert "got 'main'" in refusal(place.name("code"), trust_remote_code=True, revision="main")
    with pytest.raises(ValueError, match="trust_remote_code"):
        from_weak_teacher(place.name("code"), num_hidden_layers=2)
    assert not (HF_HOME / "ran").exists()
    assert load_teacher(place.name("code"), trust_remote_code=True, revision=commit).origin.commit == commit
    assert (HF_HOME / "ran").exists()
    (HF_HOME / "ran").rmdir()


def test_a_student_is_grown_from_the_commit_that_its_plan_names(place: Repositories, folder: Path) -> None:
    commit = place.add("small", folder)
    _, report = from_weak_teacher(place.name("small"), num_hidden_layers=2, output_report=True)
    assert report.plan.teacher == place.name("small") + f"@{commit}"


def test_a_teacher_of_another_tokenizer_is_refused_by_its_tokens(
    place: Repositories, folder: Path, tmp_path: Path
) -> None:
    contents = {each.name: each.read_bytes() for each in folder.iterdir()}
    word = WORDS[0]
    contents["tokenizer.json"] = contents["tokenizer.json"].replace(f'"{word}"'.encode(), b'"other"')
    place.add("other", contents)
    with pytest.raises(ValueError, match=rf"differ at 1 tokens, first id \d+ \('other' vs '{word}'\)"):
        make_trainer(tmp_path, teacher=place.name("other"))
