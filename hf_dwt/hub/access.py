"""May this be read, and at which commit? May that be written? Asked before any work, refused with what to do."""

import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath

from huggingface_hub import (
    HfApi,
    constants,
    get_hf_file_metadata,
    hf_hub_url,
    snapshot_download,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.hf_api import RepoFile

from hf_dwt.hub.transience import Patience, is_transient, patiently, status_of

_CONFIG, _TOKENIZER, _ADAPTER = "config.json", "tokenizer_config.json", "adapter_config.json"
_TEXTS = {".json", ".txt", ".model", ".jinja", ".tiktoken"}
_SAFETENSORS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
_PICKLES = re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin")
_INSTEAD = "put it on its base with `PeftModel.from_pretrained` and pass that, or what `merge_and_unload()` saves."
_READING = Patience(attempts=3, first_wait=0.5, limit=10.0)
# Seconds that fetching files may take apart from their size, and what counts as no longer moving.
_FETCHING = 120.0
_SLOWEST_BYTES_PER_SECOND = 100_000


def is_full_commit(revision: str | None) -> bool:
    """Tell whether a revision can never mean anything else."""
    return re.fullmatch(r"[0-9a-f]{40}", revision or "") is not None


def resolve_commit(
    name: str, revision: str | None, token: str | bool | None, subfolder: str = "", *, role: str = "teacher"
) -> str:
    """Find the full commit that a branch, tag or short commit means now; offline, what the cache knows it as.

    Args:
        name: Hub id.
        revision: Branch, tag or commit.
        token: Hub token.
        subfolder: Of the repository.
        role: What it is wanted as: 'teacher', 'student', 'model' or 'tokenizer'.

    Raises:
        OSError: If there is no such repository, revision or model, it may not be read, or the Hub does not answer.
    """
    file = _TOKENIZER if role == "tokenizer" else str(PurePosixPath(subfolder) / _CONFIG)
    cached = _cached_commit(name, file, revision) or _cached_commit(name, _CONFIG, revision)
    if cached is not None and (is_full_commit(revision) or constants.HF_HUB_OFFLINE):
        return cached
    where = f"{name!r} (revision {revision or 'main'!r}) at {constants.ENDPOINT}"
    if constants.HF_HUB_OFFLINE:
        raise OSError(f"The {role} {where} is not in the cache, and HF_HUB_OFFLINE=1: load it once while online.")
    url = _url(name, file, revision, role)
    try:
        found = patiently(lambda _: get_hf_file_metadata(url, token=token, timeout=_READING.limit), _READING)
        commit = found.commit_hash
    except RemoteEntryNotFoundError as error:
        if role != "tokenizer":
            raise OSError(
                f"The {role} {where} holds no {file}: it is no model of transformers. If it is an adapter of peft, "
                f"{_INSTEAD}"
            ) from error
        # Some tokenizers are a vocabulary alone; the Hub names the commit all the same.
        commit = error.response.headers.get(constants.HUGGINGFACE_HEADER_X_REPO_COMMIT)
    except Exception as error:
        raise OSError(f"The {role} {where} {_reading_fault(error, cached)}") from error
    if commit is None:
        raise OSError(f"The {role} {where} cannot be pinned: the Hub has not said which commit it is.")
    _remember(name, revision or "main", commit)
    return commit


def fetch_model(
    name: str, commit: str, token: str | bool | None, *, subfolder: str = "", pickles: bool = False, code: bool = False
) -> Path:
    """Bring a model's configuration, tokenizer and weights into the cache, all of one commit, and return their folder.

    Where the Hub cannot be reached the cache serves, if it has the whole model: a commit never changes.

    Args:
        name: Hub id.
        commit: Full commit.
        token: Hub token.
        subfolder: Of the repository.
        pickles: Also `.bin` weights, if there are no safetensors.
        code: Also Python files.

    Raises:
        OSError: If there are no weights that may be read, or they cannot be fetched.
    """
    where = f"{name!r} at commit {commit} ({constants.ENDPOINT})"
    cached = _cached_model(name, commit, subfolder, pickles)
    if constants.HF_HUB_OFFLINE:
        if cached is None:
            raise OSError(
                f"The teacher {where} is in the cache in part only, and HF_HUB_OFFLINE=1: load it while online."
            )
        return cached
    try:
        sizes = patiently(lambda _: _sizes(name, commit, token), _READING)
        texts, weights = _wanted(sizes, subfolder, pickles, code)
        folder = ""
        for files in (texts, weights) if weights else ():
            # Weights come last: where they are in the cache everything else is.
            folder = _fetch(name, commit, token, {each: sizes[each] for each in files})
    except Exception as error:
        if cached is not None and is_transient(error):
            return cached
        raise OSError(f"The teacher {where} {_reading_fault(error, None)}") from error
    if not weights:
        others = sorted(each for each in sizes if _PICKLES.fullmatch(PurePosixPath(each).name))
        fault = "has no safetensors."
        if others:
            fault += f" It has {others[0]}, a pickle: `allow_pickle=True` reads its weights, no code."
        elif any(PurePosixPath(each).name == _ADAPTER for each in texts):
            fault = f"holds an adapter of peft, no whole model: {_INSTEAD}"
        raise OSError(f"The teacher {where} {fault}")
    return Path(folder) / subfolder


def _fetch(name: str, commit: str, token: str | bool | None, sizes: Mapping[str, int]) -> str:
    limit = _FETCHING + sum(sizes.values()) / _SLOWEST_BYTES_PER_SECOND
    return patiently(
        lambda _: snapshot_download(name, revision=commit, token=token, allow_patterns=list(sizes)), _READING, limit
    )


def _sizes(name: str, commit: str, token: str | bool | None) -> dict[str, int]:
    """Bytes of every file of a commit."""
    tree = HfApi().list_repo_tree(name, revision=commit, recursive=True, token=token)
    return {each.path: each.size for each in tree if isinstance(each, RepoFile)}


def _cached_model(name: str, commit: str, subfolder: str, pickles: bool) -> Path | None:
    """Folder of a model in the cache, None unless all of its weights are there."""
    config = try_to_load_from_cache(name, str(PurePosixPath(subfolder) / _CONFIG), revision=commit)
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    for pattern in (_SAFETENSORS, _PICKLES) if pickles else (_SAFETENSORS,):
        found = [match for each in folder.iterdir() if (match := pattern.fullmatch(each.name))]
        shards = {int(match[1].split("-")[-1]) for match in found if match[1]}
        if found and (not shards or shards == {len(found)}):
            return folder
    return None


def _url(name: str, file: str, revision: str | None, role: str) -> str:
    try:
        return hf_hub_url(name, file, revision=revision or "main")
    except HFValidationError as error:
        raise OSError(f"`{role}` is {name!r}, which is neither a folder nor a Hub id: {error}") from error


def _wanted(files: Iterable[str], subfolder: str, pickles: bool, code: bool) -> tuple[list[str], list[str]]:
    """Texts and weights that make the model."""
    here = [each for each in files if str(PurePosixPath(each).parent) == str(PurePosixPath(subfolder))]
    names = {each: PurePosixPath(each).name for each in here}
    weights = [each for each in here if _SAFETENSORS.fullmatch(names[each])]
    if not weights and pickles:
        weights = [each for each in here if _PICKLES.fullmatch(names[each])]
    # An adapter is read with the model that it lies beside; alone it is no model.
    formats = tuple({PurePosixPath(each).suffix for each in weights})
    weights += [each for each in here if names[each].startswith("adapter_model") and each.endswith(formats)]
    suffixes = _TEXTS | ({".py"} if code else set())
    return [each for each in here if PurePosixPath(each).suffix in suffixes], weights


def _cached_commit(name: str, file: str, revision: str | None) -> str | None:
    try:
        path = try_to_load_from_cache(name, file, revision=revision or "main")
    except HFValidationError:
        return None
    if not isinstance(path, str):
        return None
    parts = Path(path).parts
    return parts[len(parts) - 1 - parts[::-1].index("snapshots") + 1]


def _remember(name: str, revision: str, commit: str) -> None:
    """Note in the cache what a revision means, as the client does when it is not given a full commit."""
    if revision != commit:
        path = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=name, repo_type="model"), "refs", revision)
        own = path.with_name(f"{path.name}.{os.getpid()}")
        # A cache that cannot be written to serves all the same; another process never sees half of a note.
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            own.write_text(commit)
            own.replace(path)


def _reading_fault(error: Exception, cached: str | None) -> str:
    """What is wrong and what to do, from what the client has raised."""
    if isinstance(error, GatedRepoError):
        return "is gated: ask for access on its page, then pass `token` or run `hf auth login`."
    if isinstance(error, RepositoryNotFoundError):
        return "was not found, or is private: check the name, and pass `token` or run `hf auth login` if it is private."
    if isinstance(error, RevisionNotFoundError):
        return "has no such revision: pass a branch, tag or commit that it has."
    if status_of(error) in (401, 403):
        return "may not be read with this token: it is wrong or has expired. Make a new one, or pass `token=False`."
    if is_transient(error) or isinstance(error, OfflineModeIsEnabled):
        if cached is None:
            return f"cannot be reached ({error}), and is not in the cache: try again when the Hub answers."
        return (
            f"cannot be reached ({error}). The cache holds commit {cached}, which may not be what it is now: "
            f"`revision={cached!r}` takes it, so does HF_HUB_OFFLINE=1."
        )
    return f"could not be fetched: {error}"


def require_write_access(repo_id: str, token: str | bool | None) -> None:
    """Check that a repository may be written to.

    Raises:
        PermissionError: If it may not.
        OSError: If the Hub does not answer.
    """
    try:
        patiently(lambda _: HfApi().auth_check(repo_id, token=token, write=True), _READING)
    except Exception as error:
        raise writing_error(f"{repo_id!r} at {constants.ENDPOINT}", error) from error


def writing_error(where: str, error: Exception) -> OSError:
    """The error to raise before any work is done; a `PermissionError` where it is one."""
    kind = PermissionError if _is_refusal(error) else OSError
    hint = " Try again when the Hub answers, or train without `push_to_hub`." if is_transient(error) else ""
    return kind(f"{where} {writing_fault(error)}{hint}")


def writing_fault(error: Exception) -> str:
    """What is wrong with writing and what to do, from what the client has raised."""
    if _is_refusal(error):
        return (
            f"cannot be written to with this token ({status_of(error)}): pass `hub_token` with write access, or run "
            "`hf auth login`."
        )
    if isinstance(error, RevisionNotFoundError):
        return "has no such branch."
    text = " ".join(str(error).split()).rstrip(".")
    unread = isinstance(error, KeyError | ValueError) and not isinstance(error, HFValidationError)
    if unread and status_of(error) is None:
        return f"cannot be written to: it has answered what the client cannot read ({type(error).__name__}: {text})."
    return f"cannot be written to: {text}."


def _is_refusal(error: Exception) -> bool:
    return status_of(error) in (401, 403) or isinstance(error, RepositoryNotFoundError)
