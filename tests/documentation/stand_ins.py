"""What the pages of the site assume, in small, and all that is changed of their examples to run in seconds."""

import json
import re
from collections.abc import Callable
from pathlib import Path

from datasets import Dataset
from tiny_runs import WORDS, make_teacher, tokenizer

ROOT = Path(__file__).parents[2]

_SENTENCES = [" ".join((WORDS * 3)[start : start + 14]) for start in range(len(WORDS))]

# Appended to a command of `hf-dwt train` or `assess`, by its recipe. Of the speeches, sizes are small and the words are
# few; that teacher is trained until it knows them, as it has to be better than guessing.
_QUICK = "--use_cpu true --disable_tqdm true --save_steps 2 --max_steps 4"
_SHORT = "--length 16 --num_evaluation_examples 8 --per_device_train_batch_size 8"
OPTIONS = {
    "causal_teacher.yaml": f"{_QUICK} {_SHORT} --tokenizer.vocab_size 300 --n_embd 32 --max_steps 80 --save_steps 80",
    "causal.yaml": f"{_QUICK} {_SHORT} --n_embd 32",
    "recipe.yaml": _QUICK,
}


def smaller(code: str) -> str:
    """Python, or a command, of few steps."""
    return re.sub(r"(max_steps(?:=| ))\d+", r"\g<1>4", code)


def prepare(page: str) -> None:
    """Put what a page assumes into the working directory."""
    Path("trainer_configs").symlink_to(ROOT / "trainer_configs")
    Path("corpus").mkdir()
    Path("corpus/words.txt").write_text("\n".join(_SENTENCES * 20))
    _MORE.get(page, _small_models)()


def put_model(folder: str, kind: str = "masked") -> None:
    """A small model that has learnt the words, with its tokenizer."""
    make_teacher(kind).save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def _small_models() -> None:
    put_model("me/bert-4-layers")
    put_model("me/bert-6-layers")


def _speeches() -> None:
    """What `hf-dwt demo --causal --prepare-only` fetches; the rest comes from the page."""
    Path("demo-speeches").mkdir()
    Path("demo-speeches/train.txt").write_text("\n".join(_SENTENCES * 40))
    Path("demo-speeches/held_out.txt").write_text("\n".join(_SENTENCES * 4))


def _speeches_teacher() -> None:
    put_model("speeches-teacher", "causal")


def _rows() -> None:
    _small_models()
    texts = [f"the {'cat' if index % 2 else 'rain'} {index}" for index in range(60)]
    Dataset.from_dict({"text": texts, "label": [index % 2 for index in range(60)]}).to_csv("rows.csv")


def _record() -> None:
    """What `hf-dwt train` leaves on the Hub; the models are there too."""
    recipe = {"teacher": "corpus-teacher", "student": {"num_hidden_layers": 2}, "data": {"source": "corpus/words.txt"}}
    put_model("corpus-teacher")
    Path("dwt_recipe.json").write_text(json.dumps({"schema_version": 1, "recipe": recipe}))


_MORE: dict[str, Callable[[], None]] = {
    "tutorial.md": _speeches,
    "cli.md": _speeches_teacher,
    "extending.md": _rows,
    "hub.md": _record,
}
