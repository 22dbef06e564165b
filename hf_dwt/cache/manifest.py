"""What a folder of cached predictions says of itself."""

import json
import os
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

_NAME = "cache.json"


@dataclass(frozen=True)
class Manifest:
    """The content of `cache.json`.

    Attributes:
        teacher: What it is called, its revision and commit, its architecture and number of parameters.
        kind: 'masked' or 'causal'.
        model: Fingerprint of its weights.
        tokenizer: Fingerprint of the tokens, None if they are not known.
        data: Fingerprint of examples and masks.
        num_examples: Of an epoch.
        epochs: Epochs of masks that are cached.
        top_k: Tokens kept at a position.
        dtype: Of their log-probabilities.
        num_shared_tokens: Tokens that the distributions are over.
        shards: Bytes of the files that were written to their end, by name.
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
    dtype: str
    num_shared_tokens: int
    shards: dict[str, int]
    is_complete: bool = False

    def with_shard(self, name: str, size: int) -> "Manifest":
        """The same with one more shard."""
        return replace(self, shards={**self.shards, name: size})

    def differences(self, other: "Manifest") -> list[str]:
        """Names of what makes two caches different ones."""
        own = {"shards", "is_complete", "teacher"}
        names = [field.name for field in fields(self) if field.name not in own]
        return [name for name in names if vars(self)[name] != vars(other)[name]]

    def write(self, folder: Path) -> None:
        """Write it in one piece."""
        unfinished = folder / f"{_NAME}.unfinished"
        unfinished.write_text(json.dumps(asdict(self), indent=1) + "\n")
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
        return Manifest(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{str(path)!r} is corrupt, or of another version: {error}. Remove the folder and cache again."
        ) from error
