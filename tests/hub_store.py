"""Repositories of the test Hub, in memory: branches of commits, whose large files lie by their hash."""

import hashlib
import itertools
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import hf_xet

LARGE_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".png")


class Refused(Exception):
    """An answer other than success, with the code that the client looks at."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.code = status, code


@dataclass(frozen=True)
class Blob:
    """A file of a commit; a large one is known by the hash of its content only."""

    size: int
    git_oid: str
    content: bytes | None = None
    sha256: str | None = None

    @property
    def oid(self) -> str:
        return self.sha256 or self.git_oid


def small_blob(content: bytes) -> Blob:
    return Blob(len(content), hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(), content)


def large_blob(sha256: str, size: int) -> Blob:
    return Blob(size, hashlib.sha1(sha256.encode()).hexdigest(), sha256=sha256)


@dataclass(frozen=True)
class Commit:
    oid: str
    parent: str | None
    title: str
    files: Mapping[str, Blob]


@dataclass
class Repository:
    """Branches and tags name commits; nothing is ever removed."""

    name: str
    private: bool = False
    gated: bool = False
    kind: str = "model"
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.branches["main"] = self.append(Commit("", None, "initial commit", {})).oid

    def append(self, commit: Commit) -> Commit:
        oid = hashlib.sha1(f"{self.name} {len(self.commits)} {commit.title}".encode()).hexdigest()
        self.commits[oid] = Commit(oid, commit.parent, commit.title, commit.files)
        return self.commits[oid]

    def resolve(self, revision: str) -> Commit:
        oid = self.branches.get(revision) or self.tags.get(revision)
        if oid is None:
            found = [each for each in self.commits if len(revision) >= 7 and each.startswith(revision)]
            oid = found[0] if found else None
        if oid is None:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[oid]

    def commit(self, branch: str, title: str, changes: Mapping[str, Blob | None], parent: str | None = None) -> Commit:
        """Append a commit to a branch; a change to None deletes."""
        if branch not in self.branches:
            raise Refused(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        head = self.commits[self.branches[branch]]
        if parent not in (None, head.oid):
            raise Refused(412, "A commit has happened since. Please refresh and try again.")
        files = {**head.files, **changes}
        new = self.append(Commit("", head.oid, title, {path: blob for path, blob in files.items() if blob}))
        self.branches[branch] = new.oid
        return new

    def history(self, revision: str) -> Iterator[Commit]:
        commit: Commit | None = self.resolve(revision)
        while commit is not None:
            yield commit
            commit = self.commits[commit.parent] if commit.parent else None


class Objects:
    """Large files by their SHA-256: those sent by LFS as bytes, those sent by Xet in the store of its own client."""

    def __init__(self, xet_folder: Path) -> None:
        self.xet_url = f"local://{xet_folder}"
        self._xet_folder = xet_folder
        self._bytes: dict[str, bytes] = {}

    def add(self, sha256: str, content: bytes) -> None:
        if hashlib.sha256(content).hexdigest() != sha256:
            raise Refused(400, f"The content does not have the hash {sha256}.")
        self._bytes[sha256] = content

    def __contains__(self, sha256: str) -> bool:
        return sha256 in self._bytes or sha256 in self.xet_hashes()

    def read(self, sha256: str, size: int) -> bytes:
        if sha256 not in self._bytes:
            self._bytes[sha256] = self._read_xet(self.xet_hashes()[sha256], size)
        return self._bytes[sha256]

    def xet_hashes(self) -> dict[str, str]:
        """Xet hash of every file that was sent by Xet, by its SHA-256."""
        shards = (self._xet_folder / "xet" / "xorbs" / "shards").glob("*.mdb")
        return dict(itertools.chain.from_iterable(_files_of_shard(shard.read_bytes()) for shard in shards))

    def _read_xet(self, xet_hash: str, size: int) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "content"
            with hf_xet.XetSession().new_file_download_group(endpoint=self.xet_url) as group:
                group.start_download_file(hf_xet.XetFileInfo(xet_hash, size), str(path))
            return path.read_bytes()


def _files_of_shard(shard: bytes) -> Iterator[tuple[str, str]]:
    """SHA-256 and Xet hash of the files that a shard lists, in records of 48 bytes after its header."""
    with_verification, with_metadata = 1 << 31, 1 << 30
    start = 48
    while shard[start : start + 32] != b"\xff" * 32:
        flags, segments = (int.from_bytes(shard[start + at : start + at + 4], "little") for at in (32, 36))
        end = start + 48 * (1 + segments * (2 if flags & with_verification else 1))
        if flags & with_metadata:
            yield _hash_text(shard[end : end + 32]), _hash_text(shard[start : start + 32])
            end += 48
        start = end


def _hash_text(raw: bytes) -> str:
    # Four little-endian numbers.
    return b"".join(raw[at : at + 8][::-1] for at in range(0, 32, 8)).hex()
