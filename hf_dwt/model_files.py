"""A model's files in a folder: what is refused before they are read, and how they are read."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
from transformers import CONFIG_MAPPING, AutoTokenizer
from transformers.utils import logging

logger = logging.get_logger(__name__)


def check_folder(name: str, revision: str | None = None) -> None:
    """Refuse what looks like a folder and holds no model.

    Raises:
        FileNotFoundError: If there is no configuration, or an adapter of peft alone; it tells what to do with that.
        ValueError: If a revision is asked of a folder.
    """
    folder = Path(name).expanduser()
    if not looks_local(name):
        return
    refuse_revision(name, revision)
    has_config = (folder / "config.json").is_file()
    # An adapter may lie beside the weights of its base, and a copy of its base's configuration beside an adapter.
    weights = [path for pattern in ("model*.safetensors", "pytorch_model*.bin") for path in folder.glob(pattern)]
    if (folder / "adapter_config.json").is_file() and not (has_config and weights):
        raise FileNotFoundError(
            f"`teacher` is {name!r}, which holds an adapter of peft, no whole model: put it on its base with "
            f"`PeftModel.from_pretrained(base, {name!r})` and pass that model, or the folder of what its "
            "`merge_and_unload()` saves."
        )
    if not has_config:
        raise FileNotFoundError(f"`teacher` is {name!r}, which is no folder with a config.json.")


def refuse_revision(name: str, revision: str | None) -> None:
    """Refuse what would be ignored: a folder is as it is.

    Raises:
        ValueError: If there is a revision.
    """
    if revision is not None:
        raise ValueError(f"`revision` ({revision!r}) is for Hub ids, but {name!r} is a folder.")


def name_of(source: str | os.PathLike[str]) -> str:
    """The name of a model's source. A path is a folder, whatever it is called: it gets a name that no Hub id has."""
    name = os.fspath(source)
    return name if isinstance(source, str) or looks_local(name) else os.path.join(".", name)


def looks_local(name: str) -> bool:
    """Tell whether a name cannot be a Hub id, or is there as a folder."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or Path(name).exists()


def needs_own_code(config: Mapping[str, Any]) -> bool:
    """Tell of a configuration's content whether its class is one that transformers does not have."""
    return "auto_map" in config and config.get("model_type") not in CONFIG_MAPPING


def refuse_custom_code(folder: Path, origin: object, trust_remote_code: bool) -> None:
    """Refuse a class that transformers does not have, unless its code is trusted.

    Raises:
        ValueError: If it is one; nothing of it has been run.
    """
    config = json.loads((folder / "config.json").read_text())
    if not trust_remote_code and needs_own_code(config):
        raise ValueError(
            f"The teacher ({origin}) is of a class that transformers does not have; its repository brings code for it. "
            "Nothing of it was run. If you have read it and trust it, pass `trust_remote_code=True` and, for a Hub id, "
            "the full commit as `revision`."
        )


def refuse_broken_files(folder: Path, origin: object) -> None:
    """Refuse safetensors that are cut short, and JSON that is none.

    Raises:
        OSError: Naming the file.
    """
    for path in sorted([*folder.glob("*.safetensors"), *folder.glob("*.json")]):
        try:
            if path.suffix == ".json":
                json.loads(path.read_bytes())
            else:
                with safetensors.safe_open(path, framework="pt"):
                    pass
        except (safetensors.SafetensorError, ValueError) as error:
            raise OSError(
                f"The teacher ({origin}) has a file that is cut short or broken, {path.name}: {error}. Remove {path} "
                "to fetch it again; if that does not help it was uploaded so."
            ) from error


def refuse_new_weights(origin: object, loading: Mapping[str, Any]) -> None:
    """Refuse a model of which weights were not saved.

    Args:
        origin: Where it came from.
        loading: What `from_pretrained` tells of it.

    Raises:
        ValueError: Naming the weights.
    """
    new = sorted({*loading["missing_keys"], *(key for key, *_ in loading["mismatched_keys"])})
    if new:
        raise ValueError(
            f"The teacher ({origin}) was saved without {', '.join(new[:3])}{' ...' if new[3:] else ''}: "
            f"{len(new)} weights would be random. A teacher needs its trained language-modelling head."
        )


def load_tokenizer(name: str, source: Mapping[str, Any]) -> Any | None:
    """Load the tokenizer beside a model, None (and a warning) if there is none.

    Args:
        name: Folder or Hub id.
        source: Arguments of `from_pretrained`.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **source)
    except (OSError, ValueError):
        tokenizer = None
    # Where the files are missing, transformers may also answer with a tokenizer that has special tokens only.
    if tokenizer is None or len(tokenizer) <= len(tokenizer.all_special_ids):
        logger.warning(f"There is no tokenizer beside the teacher {name!r}: its tokens cannot be compared.")
        return None
    return tokenizer


@contextmanager
def without_conversion_service() -> Iterator[None]:
    """Keep transformers from asking a third party, token in hand, to convert a `.bin` file in the background."""
    variable = "DISABLE_SAFETENSORS_CONVERSION"
    before = os.environ.get(variable)
    os.environ[variable] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before
