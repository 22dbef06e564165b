"""The test Hub does what the real client expects, and refuses what the real one refuses."""

import hashlib
import os
import subprocess

import pytest
from hub_server import OWNER_TOKEN, READER_TOKEN, Hub
from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    BadRequestError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

LARGE = os.urandom(70_000)


@pytest.fixture
def api(hub: Hub) -> HfApi:
    return HfApi(token=OWNER_TOKEN)


def additions() -> list[CommitOperationAdd]:
    return [CommitOperationAdd("a/model.safetensors", LARGE), CommitOperationAdd("config.json", b"{}")]


def test_what_is_pushed_is_pulled(each_transfer: Hub, api: HfApi) -> None:
    api.create_repo("me/model", private=True)
    commit = api.create_commit("me/model", additions(), commit_message="First")
    path = hf_hub_download("me/model", "a/model.safetensors", revision=commit.oid, token=OWNER_TOKEN)
    with open(path, "rb") as file:
        assert file.read() == LARGE
    assert each_transfer.contents("me/model") == {"a/model.safetensors": LARGE, "config.json": b"{}"}
    assert LARGE in each_transfer.everything()
    assert sorted(api.list_repo_files("me/model")) == ["a/model.safetensors", "config.json"]
    assert [each.title for each in api.list_repo_commits("me/model")] == ["First", "initial commit"]
    assert snapshot_download("me/model", token=OWNER_TOKEN).endswith(commit.oid)
    assert not any(OWNER_TOKEN in str(each) for each in each_transfer.requests if "/storage/" in each.path)


def test_nothing_new_makes_no_commit(each_transfer: Hub, api: HfApi) -> None:
    api.create_repo("me/model")
    commits = [api.create_commit("me/model", additions(), commit_message="Again").oid for _ in range(2)]
    assert commits[0] == commits[1]


def test_a_file_may_be_of_a_data_set(hub: Hub) -> None:
    hub.add("me/glue", {"data/train.csv": b"sentence,label\nfine,1\n"}, kind="dataset")
    path = hf_hub_download("me/glue", "data/train.csv", repo_type="dataset")
    with open(path, "rb") as file:
        assert file.read() == b"sentence,label\nfine,1\n"


def test_a_stale_parent_is_refused(hub: Hub, api: HfApi) -> None:
    api.create_repo("me/model")
    parent = api.model_info("me/model").sha
    hub.add("me/model", {"other.txt": b"1"})
    with pytest.raises(HfHubHTTPError, match="A commit has happened since") as caught:
        api.create_commit("me/model", additions()[1:], commit_message="Late", parent_commit=parent)
    assert caught.value.response.status_code == 412


def test_content_of_another_hash_is_refused(hub: Hub) -> None:
    sent = subprocess.run(
        ["curl", "-s", "-o", os.devnull, "-w", "%{http_code}", "-T", "-", f"{hub.url}/storage/{'0' * 64}"],
        input=b"content",
        capture_output=True,
        timeout=30,
        check=True,
    )
    assert sent.stdout == b"400"


def test_a_commit_of_a_large_file_that_is_not_there_is_refused(hub: Hub, api: HfApi) -> None:
    api.create_repo("me/model")
    operation = CommitOperationAdd("model.safetensors", LARGE[:100])
    operation._is_uploaded, operation._upload_mode = True, "lfs"
    operation._should_ignore, operation._remote_oid = False, None
    with pytest.raises(BadRequestError, match=f"There is no object {hashlib.sha256(LARGE[:100]).hexdigest()}"):
        api.create_commit("me/model", [operation], commit_message="Nothing in it")


def test_who_may_not_read_or_write_is_told(hub: Hub, api: HfApi) -> None:
    hub.add("me/private", {"a": b""}, private=True)
    hub.add("me/gated", {"a": b""}, gated=True)
    for name, token, error in [
        ("me/missing", OWNER_TOKEN, RepositoryNotFoundError),
        ("me/private", False, RepositoryNotFoundError),
        ("me/private", READER_TOKEN, RepositoryNotFoundError),
        ("me/private", "hf_wrong", HfHubHTTPError),
        ("me/gated", READER_TOKEN, GatedRepoError),
    ]:
        with pytest.raises(error):
            api.auth_check(name, token=token)
    hub.add("me/open", {"a": b""})
    with pytest.raises(HfHubHTTPError, match="do not have write access"):
        api.auth_check("me/open", write=True, token=READER_TOKEN)
    with pytest.raises(RevisionNotFoundError):
        api.model_info("me/private", revision="nowhere")
    with pytest.raises(HfHubHTTPError, match="don't have the rights"):
        api.create_repo("me/new", token=READER_TOKEN)


@pytest.mark.parametrize("kind", [503, "drop", "lose"])
def test_a_fault_happens_as_often_as_it_is_asked_for(kind: int | str, hub: Hub, api: HfApi) -> None:
    api.create_repo("me/model")
    hub.fail("POST", "/commit/", kind)
    with pytest.raises(Exception, match=r"503|disconnected|reset"):
        api.create_commit("me/model", additions()[1:], commit_message="One")
    assert len(list(api.list_repo_commits("me/model"))) == (2 if kind == "lose" else 1)
    api.create_commit("me/model", [CommitOperationAdd("b", b"2")], commit_message="Two")
    assert len(hub.contents("me/model")) == (2 if kind == "lose" else 1)
