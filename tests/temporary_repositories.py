"""Repositories of one test on whatever Hub this process has, made and looked at by the real client alone."""

import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path

from hub_place import IS_REAL, TOKEN, URL
from huggingface_hub import CommitOperationAdd, HfApi, snapshot_download


class Repositories:
    """They have short names here, and are gone after `remove`."""

    def __init__(self) -> None:
        self.token, self.url = TOKEN, URL
        self.api = HfApi(token=TOKEN)
        self.owner = self.api.whoami()["name"]
        self._own = f"hf-dwt-test-{uuid.uuid4().hex[:12]}"
        self._named: set[str] = set()

    def name(self, short: str) -> str:
        self._named.add(short)
        return f"{self.owner}/{self._own}-{short}"

    def add(self, short: str, source: Path | Mapping[str, bytes], branch: str = "main", private: bool = IS_REAL) -> str:
        """Commit a folder, or contents by path, into a repository that is made where there is none; return the oid."""
        if isinstance(source, Path):
            source = {str(each.relative_to(source)): each.read_bytes() for each in source.rglob("*") if each.is_file()}
        self.api.create_repo(self.name(short), private=private, exist_ok=True)
        if branch != "main":
            self.api.create_branch(self.name(short), branch=branch, exist_ok=True)
        operations = [CommitOperationAdd(path, content) for path, content in source.items()]
        return str(
            self.api.create_commit(self.name(short), operations, commit_message="Add files", revision=branch).oid
        )

    def head(self, short: str, branch: str = "main") -> str:
        return str(self.api.model_info(self.name(short), revision=branch).sha)

    def titles(self, short: str, branch: str = "main") -> list[str]:
        """Of the commits, the last one first."""
        return [each.title for each in self.api.list_repo_commits(self.name(short), revision=branch)]

    def contents(self, short: str, revision: str = "main") -> dict[str, bytes]:
        """All files of a commit, without what a Hub puts there by itself."""
        with tempfile.TemporaryDirectory() as folder:
            snapshot_download(self.name(short), revision=revision, token=self.token, local_dir=folder)
            paths = [each for each in Path(folder).rglob("*") if each.is_file()]
            contents = {each.relative_to(folder).as_posix(): each.read_bytes() for each in paths}
        return {
            name: content
            for name, content in contents.items()
            if not name.startswith(".cache/") and name != ".gitattributes"
        }

    def everything(self) -> bytes:
        """All files of all commits."""
        commits = {
            (short, each.commit_id): None
            for short in self._there()
            for branch in self.api.list_repo_refs(self.name(short)).branches
            for each in self.api.list_repo_commits(self.name(short), revision=branch.name)
        }
        return b"\n".join(content for each in commits for content in self.contents(*each).values())

    def exists(self, short: str) -> bool:
        return self.api.repo_exists(self.name(short))

    def remove(self) -> None:
        for short in self._there():
            self.api.delete_repo(self.name(short))

    def _there(self) -> list[str]:
        return [each for each in sorted(self._named) if self.exists(each)]
