"""Real sentences, for steps on natural lengths."""

import re
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from datasets import Dataset
from transformers.trainer_pt_utils import LengthGroupedSampler

from benchmarks.step_arms import NUM_FIRST_STEPS, Setting
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


def grouped_batches(setting: Setting) -> Dataset:
    """Batches of sentences of similar lengths, one after the other, of lengths from all over the text.

    They are drawn by the stock sampler, once: trainers that read them in their order get the very same batches.
    """
    dataset, size = sentences(setting), setting.batch_size
    generator = torch.Generator().manual_seed(0)
    order = list(LengthGroupedSampler(size, dataset, lengths=dataset["length"], generator=generator))
    batches = [order[start : start + size] for start in range(0, len(order) - size + 1, size)]
    num_batches = NUM_FIRST_STEPS + setting.num_steps
    # The sampler puts the longest examples into the first batch.
    chosen = batches[1 :: (len(batches) - 1) // num_batches][:num_batches]
    return dataset.select([index for batch in chosen for index in batch])
