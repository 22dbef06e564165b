"""Raw text from the Hub or from local files."""

import glob
import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from datasets import Dataset, IterableDataset, load_dataset
from datasets.exceptions import DatasetGenerationError

_BUILDERS = {".txt": "text", ".json": "json", ".jsonl": "json", ".parquet": "parquet", ".csv": "csv"}
_KINDS = ", ".join(_BUILDERS)


def load_text(
    source: str | Path | Sequence[str | Path],
    *,
    split: str = "train",
    streaming: bool = False,
    revision: str | None = None,
    token: str | bool | None = None,
    name: str | None = None,
) -> Dataset | IterableDataset:
    """The rows of a Hub data set, or of local files; of a .txt file, one row `text` per line.

    Args:
        source: A Hub data set id, or a file, folder, glob pattern or list of files with the extension
            .txt, .json, .jsonl, .parquet or .csv. What exists locally is taken before the Hub. In a folder,
            files with other extensions and hidden files are passed over. Files are read in sorted order.
        split: Split of a Hub data set, slices allowed ("train[:10%]"). Local files are all "train".
        streaming: Read rows as they are needed. An empty stream, or one that is not UTF-8, is not noticed here.
        revision: Hub only: commit, tag or branch.
        token: Hub only: access token, or True for the stored one.
        name: Hub only: configuration of the data set ("20231101.en").

    Raises:
        FileNotFoundError: `source` looks like a path, and there is nothing.
        ValueError: Files of several or unknown kinds or not in UTF-8, no rows, or Hub options for local files.

    Example:
        >>> from hf_dwt.data import load_text
        >>> load_text("missing/speeches.txt")
        Traceback (most recent call last):
        FileNotFoundError: ...
    """
    files = _local_files(source)
    if files is None:
        dataset = load_dataset(str(source), name, split=split, streaming=streaming, revision=revision, token=token)
    else:
        if revision is not None or token is not None or name is not None:
            raise ValueError(f"`revision`, `token` and `name` are for Hub data sets, but {source!r} is a local path.")
        builder = _builder(files)
        _check_not_empty(sum(file.stat().st_size for file in files), source)
        # What is given as a file is read as a pattern.
        paths = [glob.escape(str(file)) for file in files]
        # Without the mark that some editors begin a file with; the other builders drop it themselves.
        settings = {"encoding": "utf-8-sig"} if builder == "text" else {}
        try:
            dataset = load_dataset(builder, data_files=paths, split=split, streaming=streaming, **settings)
        except DatasetGenerationError:
            if builder != "parquet":
                _require_utf8(files)
            raise
        if builder == "json" and not streaming:
            _check_strings(dataset, files)
    if not streaming:
        _check_not_empty(len(dataset), source)
    return dataset


def _local_files(source: str | Path | Sequence[str | Path]) -> list[Path] | None:
    """Sorted files that `source` stands for, or None if it is the id of a Hub data set."""
    if not isinstance(source, (str, Path)):
        return sorted(file for item in source for file in _files_at(Path(item)))
    if Path(source).expanduser().exists() or isinstance(source, Path):
        return _files_at(Path(source))
    if any(character in source for character in "*?["):
        matches = sorted(Path(match) for match in glob.glob(os.path.expanduser(source), recursive=True))
        if not matches:
            raise FileNotFoundError(f"No file matches the pattern {source!r} in {Path.cwd()}.")
        return [match for match in matches if match.is_file()]
    return _files_at(Path(source)) if _looks_like_a_path(source) else None


def _looks_like_a_path(source: str) -> bool:
    is_anchored = source.startswith(("/", ".", "~")) or source.count("/") > 1 or "\\" in source
    return is_anchored or Path(source).suffix in _BUILDERS


def _files_at(path: Path) -> list[Path]:
    path = path.expanduser()
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(
            f"There is no file or folder {str(path)!r} in {Path.cwd()}. "
            'A Hub data set is named as "user/name", without an extension.'
        )
    found = [file for file in path.rglob("*") if file.suffix in _BUILDERS and file.is_file()]
    visible = [file for file in found if not any(p.startswith(".") for p in file.relative_to(path).parts)]
    if not visible:
        raise ValueError(f"The folder {str(path)!r} holds no file with one of the extensions {_KINDS}.")
    return sorted(visible)


def _builder(files: Sequence[Path]) -> str:
    if not files:
        raise ValueError("`source` is an empty list: give at least one file.")
    unknown = sorted({file.suffix for file in files} - _BUILDERS.keys())
    if unknown:
        raise ValueError(f"Cannot read files with the extension {unknown[0]!r}: use one of {_KINDS}.")
    builders = {_BUILDERS[file.suffix] for file in files}
    if len(builders) > 1:
        raise ValueError(
            f"The files are of several kinds ({', '.join(sorted({file.suffix for file in files}))}): "
            "load each kind by itself and join them with `datasets.concatenate_datasets`."
        )
    return builders.pop()


def _require_utf8(files: Sequence[Path]) -> None:
    """Name the first byte that is no UTF-8; no character goes over the end of a line.

    Raises:
        ValueError: If there is one.
    """
    for file in files:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    line.decode()
                except UnicodeDecodeError as error:
                    raise ValueError(
                        f"{str(file)!r} is not UTF-8: byte {error.start + 1} of line {number} is "
                        f"{line[error.start]:#04x}. Save it as UTF-8."
                    ) from error


def _check_strings(dataset: Dataset, files: Sequence[Path]) -> None:
    """Find bytes that are no UTF-8, at which Arrow's reader of JSON does not look.

    Raises:
        ValueError: Naming the first of them.
    """
    try:
        dataset.data.validate(full=True)
    except pa.ArrowInvalid:
        _require_utf8(files)
        raise


def _check_not_empty(size: int, source: object) -> None:
    if size == 0:
        raise ValueError(f"{source!r} holds no rows.")
