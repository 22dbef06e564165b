"""A checkpoint's tensors, read one at a time."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors
from torch import Tensor

_ONE_FILE = "model.safetensors"
_INDEX = "model.safetensors.index.json"

TensorReader = Callable[[str], Tensor]


def open_safetensors(
    folder: Path, expected: Iterable[str], prefix: str, tied: Mapping[str, str]
) -> TensorReader | None:
    """Open a checkpoint, sharded or not, without reading its tensors.

    Args:
        folder: Where it is.
        expected: Names of the parameters that will be asked for.
        prefix: Of the backbone's parameters in a model with a head; a checkpoint may have it or lack it.
        tied: Names that stand for the same parameter as another.

    Returns:
        Reads a tensor by name; None if the checkpoint is no safetensors or names its tensors otherwise, so that
        transformers has to convert it. The files stay open as long as the function lives.
    """
    if (folder / _INDEX).is_file():
        shards = json.loads((folder / _INDEX).read_text())["weight_map"]
        held = {key: folder / shard for key, shard in shards.items()}
    elif (folder / _ONE_FILE).is_file():
        with safetensors.safe_open(folder / _ONE_FILE, framework="pt") as file:
            held = dict.fromkeys(file.keys(), folder / _ONE_FILE)
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
    opened: dict[Path, Any] = {path: safetensors.safe_open(path, framework="pt") for path in set(held.values())}

    def read(name: str) -> Tensor:
        tensor: Tensor = opened[held[names[name]]].get_tensor(names[name])
        return tensor

    return read
