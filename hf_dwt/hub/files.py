"""Which files of a folder may be pushed."""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

_STUDENT = {".safetensors", ".json", ".txt", ".model", ".jinja", ".tiktoken", ".md", ".png", ".py"}
# Of the run, not of the student; `Trainer.save_metrics` names the results of any split so.
_OF_THE_RUN, _RESULTS = {"trainer_state.json", "run.json"}, "_results.json"
_TRAINING_ARGS = "training_args.bin"
_TEMPLATES = "additional_chat_templates"
_READ_AS_TEXT = {".json", ".txt", ".md", ".jinja", ".py"}

Files = Mapping[str, Path]


def student_files(folder: str | Path) -> dict[str, Path]:
    """Files of a student by their path: no optimiser, no pickle, nothing of the run."""
    paths = [*Path(folder).iterdir(), *Path(folder, _TEMPLATES).glob("*.jinja")]
    own = (path for path in paths if path.suffix in _STUDENT and not _is_of_the_run(path.name) and path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in own if not path.name.startswith(("_", "."))}


def _is_of_the_run(name: str) -> bool:
    return name in _OF_THE_RUN or name.endswith(_RESULTS)


def checkpoint_files(folder: str | Path, path_in_repo: str) -> dict[str, Path]:
    """Files of a whole checkpoint, as it is needed to resume, but for the pickled arguments."""
    paths = (path for path in Path(folder).rglob("*") if path.is_file() and path.name != _TRAINING_ARGS)
    return {f"{path_in_repo}/{path.relative_to(folder).as_posix()}": path for path in paths}


def files_with_token(files: Files, token: str | None) -> list[str]:
    """Names of the files that hold a token in what is read as text."""
    texts = {name: path for name, path in files.items() if token and path.suffix in _READ_AS_TEXT}
    return [name for name, path in texts.items() if str(token) in path.read_text(errors="replace")]


def refuse_token(files: Files, token: str | None) -> None:
    """Look for a token in what is read as text.

    Raises:
        ValueError: Naming the file that holds it.
    """
    for name in files_with_token(files, token):
        raise ValueError(
            f"{name} holds your Hub token and is not pushed: take it out of {files[name]}, and renew the token."
        )


@contextmanager
def snapshot_of(files: Files, beside: str | Path) -> Iterator[dict[str, Path]]:
    """Files as they are now, whatever becomes of them while they are pushed; linked where the file system can."""
    with TemporaryDirectory(prefix="_push_", dir=beside) as folder:
        kept = {}
        for name, path in files.items():
            kept[name] = Path(folder, name)
            kept[name].parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(path, kept[name])
            except OSError:
                shutil.copy(path, kept[name])
        yield kept
