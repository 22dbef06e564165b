"""Real sentences, for steps on natural lengths."""

import re
from pathlib import Path
from tempfile import TemporaryDirectory

from datasets import Dataset

from benchmarks.step_arms import Setting
from hf_dwt.cli.demo_inputs import prepare_speeches
from hf_dwt.data import to_sentences, train_tokenizer

NUM_SENTENCES = 20_000


def sentences(setting: Setting) -> Dataset:
    """Sentences of presidents' messages as token ids, as many tokens at most as the setting's length."""
    with TemporaryDirectory() as folder:
        prepare_speeches(Path(folder))
        text = (Path(folder) / "train.txt").read_text()
    found = [sentence for sentence in re.split(r"(?<=[.!?])\s+", text) if len(sentence.split()) > 2][:NUM_SENTENCES]
    dataset = Dataset.from_dict({"text": found})
    tokenizer = train_tokenizer(found, vocab_size=8_192, kind="wordpiece")
    return to_sentences(dataset, tokenizer, setting.length)
