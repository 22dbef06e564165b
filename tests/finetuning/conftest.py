"""Tiny models on disk, a task file, and a copy of GLUE's layout with rows that are easy to tell apart."""

from collections.abc import Callable
from pathlib import Path

import datasets
import pytest
import yaml
from datasets import ClassLabel, Dataset, Features, Value
from tokenizers import Tokenizer
from transformers import PreTrainedModel, PreTrainedTokenizerFast

# Configuration -> text columns, label names (None for numbers), evaluation splits: the schema of nyu-mll/glue.
GLUE: dict[str, tuple[list[str], list[str] | None, list[str]]] = {
    "cola": (["sentence"], ["unacceptable", "acceptable"], ["validation"]),
    "sst2": (["sentence"], ["negative", "positive"], ["validation"]),
    "mrpc": (["sentence1", "sentence2"], ["not_equivalent", "equivalent"], ["validation"]),
    "qqp": (["question1", "question2"], ["not_duplicate", "duplicate"], ["validation"]),
    "stsb": (["sentence1", "sentence2"], None, ["validation"]),
    "mnli": (
        ["premise", "hypothesis"],
        ["entailment", "neutral", "contradiction"],
        ["validation_matched", "validation_mismatched"],
    ),
    "qnli": (["question", "sentence"], ["entailment", "not_entailment"], ["validation"]),
    "rte": (["sentence1", "sentence2"], ["entailment", "not_entailment"], ["validation"]),
    "wnli": (["sentence1", "sentence2"], ["not_entailment", "entailment"], ["validation"]),
}
WORDS = ["cat", "hill", "rain"]


@pytest.fixture(autouse=True)
def own_caches(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


@pytest.fixture
def bert(tmp_path: Path, make_bert: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast) -> str:
    folder = tmp_path / "bert"
    make_bert().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def gpt2(tmp_path: Path, make_gpt2: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast) -> str:
    """A causal model whose tokenizer has an end, and nothing to pad with, as GPT-2's own."""
    folder = tmp_path / "gpt2"
    make_gpt2().save_pretrained(folder)
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    # Another test may have padded with the tokenizer that all share.
    backend.no_padding()
    own = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="[SEP]", unk_token="[UNK]")
    own.save_pretrained(folder)
    return str(folder)


def rows(num: int, num_classes: int = 2) -> dict[str, list[object]]:
    """Sentences whose one word of `WORDS` is the label."""
    labels = [index % num_classes for index in range(num)]
    texts = [f"the {WORDS[label]} {'on the mat ' * (1 + index % 4)}" for index, label in enumerate(labels)]
    return {"text": [f"{text} {index}" for index, text in enumerate(texts)], "label": labels}


@pytest.fixture
def task_file(tmp_path: Path) -> Callable[..., str]:
    """Write a suite of one task over a CSV file: `task_file(columns, **task)`."""

    def write(columns: dict[str, list[object]] | None = None, **task: object) -> str:
        Dataset.from_dict(columns or rows(120)).to_csv(str(tmp_path / "rows.csv"))
        training = {"learning_rate": 0.01, "epochs": 2, "batch_size": 8}
        own = {"data": {"source": str(tmp_path / "rows.csv"), "num_held_out": 30}, "text": ["text"]}
        content = {"tasks": {"words": {**own, "metrics": ["accuracy"], "training": training, **task}}}
        (tmp_path / "own.yaml").write_text(yaml.safe_dump(content))
        return str(tmp_path / "own.yaml")

    return write


@pytest.fixture(scope="session")
def glue(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder as the repository of GLUE on the Hub: configurations in its card, one parquet file a split."""
    folder = tmp_path_factory.mktemp("glue")
    configurations = []
    for name, (columns, classes, evaluation) in GLUE.items():
        kind = Value("float32") if classes is None else ClassLabel(names=classes)
        features = Features({**{column: Value("string") for column in columns}, "label": kind, "idx": Value("int32")})
        parts = []
        for split, num in {"train": 24, **dict.fromkeys(evaluation, 12)}.items():
            made = rows(num, 3 if classes is None else len(classes))
            # The second dev set of MNLI has every label wrong, so that the two cannot be mistaken for each other.
            shift = int(split == "validation_mismatched")
            labels = [label if classes is None else (label + shift) % len(classes) for label in made["label"]]
            content = {**dict.fromkeys(columns, made["text"]), "label": labels, "idx": list(range(num))}
            path = f"{name}/{split}-00000-of-00001.parquet"
            (folder / name).mkdir(exist_ok=True)
            Dataset.from_dict(content, features=features).to_parquet(str(folder / path))
            parts.append({"split": split, "path": path})
        configurations.append({"config_name": name, "data_files": parts})
    card = yaml.safe_dump({"configs": configurations})
    (folder / "README.md").write_text(f"---\n{card}---\n")
    return str(folder)
