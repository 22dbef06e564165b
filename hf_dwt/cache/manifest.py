"""What a folder of cached predictions says of itself."""

import json
import os
import zlib
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from hf_dwt.preflight import FirstImpression

_NAME = "cache.json"


@dataclass(frozen=True)
class Manifest:
    """The content of `cache.json`.

    Attributes:
        teacher: What it is called, its revision and commit, its architecture and number of parameters, and whether it
            reads token types; caches that do not tell have keys without any.
        kind: 'masked' or 'causal'.
        model: Fingerprint of its weights.
        tokenizer: Fingerprint of the tokens, None if they are not known.
        data: Fingerprint of examples and masks.
        num_examples: Of an epoch.
        epochs: Epochs of masks that are cached.
        top_k: Most likely tokens kept at a position.
        tail_samples: Tokens drawn from the others.
        dtype: Of their log-probabilities.
        num_shared_tokens: Tokens that the distributions are over.
        shards: Bytes of the files that were written to their end, by name.
        impression: How the teacher did on a sample of the examples when the first of them was written.
        is_complete: Whether all are.
    """

    teacher: dict[str, Any]
    kind: str
    model: str
    tokenizer: str | None
    data: str
    num_examples: int
    epochs: int
    top_k: int
    tail_samples: int
    dtype: str
    num_shared_tokens: int
    shards: dict[str, int]
    impression: FirstImpression | None = None
    is_complete: bool = False

    def with_shard(self, name: str, size: int) -> "Manifest":
        """The same with one more shard."""
        return replace(self, shards={**self.shards, name: size})

    @property
    def identity(self) -> int:
        """Number of the cache; its rows are known by it."""
        own = [self.kind, self.model, self.tokenizer, self.data, self.top_k, self.tail_samples, self.dtype]
        return zlib.crc32(repr([*own, self.num_shared_tokens]).encode())

    @property
    def reads_token_types(self) -> bool:
        """Whether token types belong to the keys."""
        return bool(self.teacher.get("reads_token_types"))

    @property
    def num_drawn(self) -> int:
        """Tokens of a position that were drawn: none where all are kept."""
        return self.tail_samples if self.top_k < self.num_shared_tokens else 0

    @property
    def num_kept(self) -> int:
        """Tokens of a position that are kept, for whichever reason."""
        return min(self.top_k, self.num_shared_tokens) + self.num_drawn

    def differences(self, other: "Manifest") -> list[str]:
        """Names of what makes two caches different ones."""
        own = {"shards", "is_complete", "teacher", "impression"}
        names = [field.name for field in fields(self) if field.name not in own]
        return [name for name in names if vars(self)[name] != vars(other)[name]]

    def write(self, folder: Path) -> None:
        """Write it in one piece."""
        unfinished = folder / f"{_NAME}.unfinished"
        content = asdict(self)
        unfinished.write_text(json.dumps({**content, "check": _check(content)}, indent=1) + "\n")
        os.replace(unfinished, folder / _NAME)


def read_manifest(folder: Path) -> Manifest | None:
    """Read what a folder says of itself, None if it holds no cache.

    Raises:
        ValueError: If it cannot be read.
    """
    path = folder / _NAME
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text())
        if content.pop("check") != _check(content):
            raise ValueError("its content is not what was written")
        return Manifest(**{**content, "impression": FirstImpression(**content["impression"])})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{str(path)!r} is corrupt, or of another version: {error}. Remove the folder and cache again."
        ) from error


def _check(content: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())
