"""May this be read, and at which commit? May that be written? Asked before any work, refused with what to do."""

import re
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
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name

from hf_dwt.hub.transience import Patience, is_transient, patiently, status_of

_CONFIG = "config.json"
_TEXTS = {".json", ".txt", ".model", ".jinja", ".tiktoken"}
_SAFETENSORS = re.compile(r"(model|adapter_model)(-\d+-of-\d+)?\.safetensors")
_PICKLES = re.compile(r"(pytorch_model|adapter_model)(-\d+-of-\d+)?\.bin")
_READING = Patience(attempts=3, first_wait=0.5, limit=10.0)


def is_full_commit(revision: str | None) -> bool:
    """Tell whether a revision can never mean anything else."""
    return re.fullmatch(r"[0-9a-f]{40}", revision or "") is not None


def resolve_commit(name: str, revision: str | None, token: str | bool | None, subfolder: str = "") -> str:
    """Find the full commit that a branch, tag or short commit means now; offline, what the cache knows it as.

    Raises:
        OSError: If there is no such repository, revision or model, it may not be read, or the Hub does not answer.
    """
    config = str(PurePosixPath(subfolder) / _CONFIG)
    cached = _cached_commit(name, config, revision)
    if cached is not None and (is_full_commit(revision) or constants.HF_HUB_OFFLINE):
        return cached
    where = f"{name!r} (revision {revision or 'main'!r}) at {constants.ENDPOINT}"
    if constants.HF_HUB_OFFLINE:
        raise OSError(f"The teacher {where} is not in the cache, and HF_HUB_OFFLINE=1: load it once while online.")
    url = _url(name, config, revision)
    try:
        found = patiently(lambda _: get_hf_file_metadata(url, token=token, timeout=_READING.limit), _READING)
    except EntryNotFoundError as error:
        raise OSError(f"The teacher {where} holds no {config}: it is no model of transformers.") from error
    except Exception as error:
        raise OSError(f"The teacher {where} {_reading_fault(error, cached)}") from error
    if found.commit_hash is None:
        raise OSError(f"The teacher {where} cannot be pinned: the Hub has not said which commit it is.")
    _remember(name, revision or "main", found.commit_hash)
    return found.commit_hash


def fetch_model(
    name: str, commit: str, token: str | bool | None, *, subfolder: str = "", pickles: bool = False, code: bool = False
) -> Path:
    """Bring a model's configuration, tokenizer and weights into the cache, all of one commit, and return their folder.

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
    if constants.HF_HUB_OFFLINE:
        return Path(snapshot_download(name, revision=commit, local_files_only=True)) / subfolder
    try:
        there = patiently(lambda _: HfApi().list_repo_files(name, revision=commit, token=token), _READING)
        wanted = _wanted(there, subfolder, pickles, code)
        if not any(each.endswith((".safetensors", ".bin")) for each in wanted):
            others = sorted(each for each in there if _PICKLES.fullmatch(PurePosixPath(each).name))
            hint = f" It has {others[0]}, a pickle: `allow_pickle=True` reads its weights, no code." if others else ""
            raise OSError(f"The teacher {where} has no safetensors.{hint}")
        folder = snapshot_download(name, revision=commit, token=token, allow_patterns=wanted)
    except Exception as error:
        if type(error) is OSError and str(error).startswith("The teacher"):
            raise
        raise OSError(f"The teacher {where} {_reading_fault(error, None)}") from error
    return Path(folder) / subfolder


def _url(name: str, file: str, revision: str | None) -> str:
    try:
        return hf_hub_url(name, file, revision=revision or "main")
    except HFValidationError as error:
        raise OSError(f"`teacher` is {name!r}, which is neither a folder nor a Hub id: {error}") from error


def _wanted(files: list[str], subfolder: str, pickles: bool, code: bool) -> list[str]:
    here = [each for each in files if str(PurePosixPath(each).parent) == str(PurePosixPath(subfolder))]
    names = {each: PurePosixPath(each).name for each in here}
    weights = [each for each in here if _SAFETENSORS.fullmatch(names[each])]
    if not weights and pickles:
        weights = [each for each in here if _PICKLES.fullmatch(names[each])]
    suffixes = _TEXTS | ({".py"} if code else set())
    return weights + [each for each in here if PurePosixPath(each).suffix in suffixes]


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
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(commit)


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
    """
    try:
        patiently(lambda _: HfApi().auth_check(repo_id, token=token, write=True), _READING)
    except Exception as error:
        raise PermissionError(f"{repo_id!r} at {constants.ENDPOINT} {writing_fault(error)}") from error


def writing_fault(error: Exception) -> str:
    """What is wrong with writing and what to do, from what the client has raised."""
    status = status_of(error)
    if status in (401, 403) or isinstance(error, RepositoryNotFoundError):
        return (
            f"cannot be written to with this token ({status}): pass `hub_token` with write access, or run "
            "`hf auth login`."
        )
    if isinstance(error, RevisionNotFoundError):
        return "has no such branch."
    return f"cannot be written to: {error}"
