"""A checkpoint's tensors, read one at a time."""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path

import safetensors
from torch import Tensor
from transformers.utils.hub import cached_file

_ONE_FILE = "model.safetensors"
_INDEX = "model.safetensors.index.json"

TensorReader = Callable[[str], Tensor]


def open_safetensors(
    name: str | os.PathLike[str],
    expected: Iterable[str],
    prefix: str,
    tied: Mapping[str, str],
    *,
    revision: str | None = None,
    token: str | bool | None = None,
) -> TensorReader | None:
    """Open a checkpoint, sharded or not, without reading its tensors.

    Args:
        name: Folder or Hub id.
        expected: Names of the parameters that will be asked for.
        prefix: Of the backbone's parameters in a model with a head; a checkpoint may have it or lack it.
        tied: Names that stand for the same parameter as another.
        revision: Branch, tag or commit.
        token: Hub token.

    Returns:
        Reads a tensor by name; None if the checkpoint is no safetensors or names its tensors otherwise, so that
        transformers has to convert it.
    """
    find = {"revision": revision, "token": token, "_raise_exceptions_for_missing_entries": False}
    index = cached_file(name, _INDEX, **find)
    if index is not None:
        shards = json.loads(Path(index).read_text())["weight_map"]
        paths = {shard: cached_file(name, shard, revision=revision, token=token) for shard in set(shards.values())}
        held = {key: paths[shard] for key, shard in shards.items()}
    elif (path := cached_file(name, _ONE_FILE, **find)) is not None:
        with safetensors.safe_open(path, framework="pt") as file:
            held = dict.fromkeys(file.keys(), path)
    else:
        return None
    names = {}
    for each in expected:
        same = [each, tied.get(each, each), *(name for name, other in tied.items() if other == each)]
        candidates = (form for name in same for form in (name, f"{prefix}.{name}", name.removeprefix(f"{prefix}.")))
        found = next((candidate for candidate in candidates if candidate in held), None)
        if found is None:
            return None
        names[each] = found
    stack = ExitStack()
    opened = {path: stack.enter_context(safetensors.safe_open(path, framework="pt")) for path in set(held.values())}

    def read(name: str) -> Tensor:
        tensor: Tensor = opened[held[names[name]]].get_tensor(names[name])
        return tensor

    return read
