"""Pushing files as one commit: retried with a bound, never landing twice."""

import hashlib
import shlex
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import CommitInfo, CommitOperationAdd, HfApi, constants, get_token
from huggingface_hub.hf_api import RepoFile
from transformers import TrainingArguments

from hf_dwt.hub.access import require_write_access, writing_error, writing_fault
from hf_dwt.hub.files import Files, files_with_token, refuse_token, student_files
from hf_dwt.hub.transience import Patience, is_transient, patiently, status_of

_PRECONDITION_FAILED = 412
_SLOWEST_BYTES_PER_SECOND = 500_000
# Seconds for an answer to a request that sends nothing.
_ANSWER = 30.0
_NOT_PUSHED = ("checkpoint-*", "*.bin", "*.pt", "*.pth", "_*", "trainer_state.json", "run.json")


class PushFailed(OSError):
    """Something could not be pushed; it is on disk, and the message tells how to push it.

    Example:
        >>> issubclass(PushFailed, OSError)
        True
    """


@dataclass(frozen=True)
class Target:
    """Where to push.

    Attributes:
        repo_id: Owner and name.
        revision: Branch.
        token: Hub token; None takes the one that is logged in. It is never shown.
        patience: With the Hub.
    """

    repo_id: str
    revision: str = "main"
    token: str | None = field(default=None, repr=False)
    patience: Patience = field(default_factory=Patience)

    def __str__(self) -> str:
        return f"{self.repo_id!r} (branch {self.revision!r}) at {constants.ENDPOINT}"


def target_of(
    args: TrainingArguments,
    patience: Patience | None = None,
    *,
    repo_id: str | None = None,
    token: str | None = None,
    revision: str | None = None,
) -> Target:
    """Where a run is pushed: as its arguments say, or else to the main branch of a repository named as its folder.

    Args:
        args: Of the run.
        patience: With the Hub.
        repo_id: Instead of `hub_model_id`.
        token: Instead of `hub_token`.
        revision: Instead of `hub_revision`.
    """
    name = repo_id or args.hub_model_id or Path(args.output_dir).absolute().name
    branch = revision or args.hub_revision or "main"
    return Target(name, branch, token or args.hub_token, patience or Patience())


def prepare(target: Target, private: bool | None) -> Target:
    """Make sure that there is a repository and a branch, and that they may be written to; return the full name.

    Raises:
        PermissionError: If they may not.
        OSError: If the Hub does not answer.
    """
    api = HfApi(token=target.token)
    limit = min(target.patience.limit, _ANSWER)
    try:
        repo_id = patiently(
            lambda _: api.create_repo(target.repo_id, private=private, exist_ok=True).repo_id, target.patience, limit
        )
    except Exception as error:
        raise writing_error(str(target), error) from error
    target = Target(repo_id, target.revision, target.token, target.patience)
    require_write_access(repo_id, target.token)
    try:
        if target.revision != "main":
            patiently(
                lambda _: api.create_branch(repo_id, branch=target.revision, exist_ok=True), target.patience, limit
            )
    except Exception as error:
        raise writing_error(str(target), error) from error
    return target


def push(files: Files, target: Target, message: str) -> CommitInfo:
    """Push files as one commit.

    A commit names the commit that it follows, so that the same cannot land twice: where an answer was lost, the branch
    is looked at first.

    Raises:
        ValueError: If a file holds the token.
        Exception: What the client has raised last.
    """
    refuse_token(files, target.token or get_token())
    api = HfApi(token=target.token)
    limit = target.patience.limit + sum(path.stat().st_size for path in files.values()) / _SLOWEST_BYTES_PER_SECOND

    def attempt(number: int) -> CommitInfo:
        return _commit(api, files, target, message, is_first=number == 0)

    try:
        return patiently(attempt, target.patience, limit)
    except Exception as error:
        if is_transient(error) and status_of(error) is None:
            # The Xet client says the same of a refused token and of a lost connection.
            _refuse_reader(target)
        raise


def push_or_tell(files: Files, target: Target, message: str, folder: str | Path) -> CommitInfo:
    """Push files of a folder as one commit, or tell how to do it by hand.

    Raises:
        PushFailed: If it could not be done.
    """
    try:
        return push(files, target, message)
    except Exception as error:
        raise failure(error, target, folder) from error


def _refuse_reader(target: Target) -> None:
    """Raise a `PermissionError` if the Hub says that a token may not write; if it says nothing, do nothing."""
    try:
        require_write_access(target.repo_id, target.token)
    except PermissionError:
        raise
    except OSError:
        return


def _commit(api: HfApi, files: Files, target: Target, message: str, *, is_first: bool) -> CommitInfo:
    parent = api.repo_info(target.repo_id, revision=target.revision, timeout=target.patience.limit).sha
    assert parent is not None
    landed = CommitInfo(f"{constants.ENDPOINT}/{target.repo_id}/commit/{parent}", message, "", parent)
    if not is_first and _holds(api, target.repo_id, parent, files):
        return landed
    operations = [CommitOperationAdd(name, path) for name, path in files.items()]
    return api.create_commit(
        target.repo_id, operations, commit_message=message, revision=target.revision, parent_commit=parent
    )


def _holds(api: HfApi, repo_id: str, commit: str, files: Files) -> bool:
    """Tell whether a commit holds exactly these files."""
    there = api.get_paths_info(repo_id, list(files), revision=commit)
    hashes = {each.path: each.lfs.sha256 if each.lfs else each.blob_id for each in there if isinstance(each, RepoFile)}
    is_large = {each.path: each.lfs is not None for each in there if isinstance(each, RepoFile)}
    return all(name in hashes and _hash(path, is_large[name]) == hashes[name] for name, path in files.items())


def _hash(path: Path, is_large: bool) -> str:
    """As the Hub knows it: SHA-256 of a large file, git's hash of any other."""
    if not is_large:
        return hashlib.sha1(b"blob %d\0" % path.stat().st_size + path.read_bytes()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def failure(error: Exception, target: Target, folder: str | Path) -> PushFailed:
    """Tell of a push that failed for good, and how to finish by hand what lies in a folder."""
    reason = f"a newer commit is in the way: {error}" if status_of(error) == _PRECONDITION_FAILED else _reason(error)
    exclude = " ".join(f"--exclude {shlex.quote(each)}" for each in _not_pushed(Path(folder), target.token))
    command = f"hf upload {target.repo_id} {shlex.quote(str(folder))} . --revision {target.revision} {exclude}"
    return PushFailed(
        f"The student could not be pushed to {target}: {reason}. It is in {folder}. This command pushes it:\n{command}"
    )


def _not_pushed(folder: Path, token: str | None) -> list[str]:
    """Patterns of what lies in a folder and is no part of the student, or holds the token."""
    pushed = student_files(folder) if folder.is_dir() else {}
    tops = {name.split("/")[0] for name in pushed if name not in files_with_token(pushed, token or get_token())}
    there = sorted(folder.iterdir()) if folder.is_dir() else []
    others = [f"{each.name}/*" if each.is_dir() else each.name for each in there if each.name not in tops]
    return [*_NOT_PUSHED, *(each for each in others if not any(fnmatch(each, known) for known in _NOT_PUSHED))]


def _reason(error: Exception) -> str:
    text = str(error) if isinstance(error, PermissionError | ValueError) else writing_fault(error)
    return " ".join(text.split()).rstrip(".")
