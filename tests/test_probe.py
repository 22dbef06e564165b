"""Teacher and student are compared on fixed examples, with fixed masks."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from tiny_runs import collator, examples, make_teacher, tokenizer
from torch import Tensor

from hf_dwt import probe as probe_module
from hf_dwt.heads import head_at
from hf_dwt.losses import hard_loss
from hf_dwt.positions import Positions, logits_at, masked_positions, without_labels
from hf_dwt.probe import Probe

TEACHER = make_teacher().eval().requires_grad_(False)
# Some of the words.
FEW = len(tokenizer()) - 4


def batches(size: int = 8) -> Iterator[dict[str, Tensor]]:
    rows = list(examples())
    return (collator("masked").for_evaluation()(rows[start : start + size]) for start in range(0, len(rows), size))


def asked(batch: dict[str, Tensor]) -> Positions:
    return masked_positions(batch["labels"])


def head_of(batch: dict[str, Tensor], positions: Positions) -> Any:
    size = max(1, len(positions) // 2)
    parts = [slice(start, start + size) for start in range(0, len(positions), size)]
    return head_at(TEACHER, without_labels(batch), positions, parts)


def make_probe(num_shared_tokens: int = 1000, size: int = 8) -> Probe:
    return Probe(batches(size), asked, num_shared_tokens, Accelerator(cpu=True))


def plain_loss(num_shared_tokens: int) -> float:
    losses = []
    for batch in batches():
        positions = asked(batch)
        known = positions.labels < num_shared_tokens
        logits = logits_at(TEACHER, without_labels(batch), positions)
        losses.append(hard_loss(logits[known], positions.labels[known]))
    return float(torch.cat(losses).mean())


@pytest.mark.parametrize("num_shared_tokens", [1000, FEW])
@pytest.mark.parametrize("size", [8, 5])
def test_the_loss_is_the_mean_over_the_positions_whose_label_the_teacher_knows(
    num_shared_tokens: int, size: int
) -> None:
    score = make_probe(num_shared_tokens, size).score(head_of)
    assert score.loss == pytest.approx(plain_loss(num_shared_tokens), rel=1e-5)
    assert score.seconds == pytest.approx(24 * score.seconds_per_example)
    assert plain_loss(FEW) != pytest.approx(plain_loss(1000), rel=1e-2)


def test_no_more_is_read_than_the_probe_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_module, "NUM_EXAMPLES", 10)
    assert make_probe().num_examples == 16


def test_a_small_probe_is_told(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    make_probe()
    assert "compared on 24 examples only" in caplog.text
    caplog.clear()
    monkeypatch.setattr(probe_module, "NUM_EXAMPLES", 24)
    make_probe()
    assert not caplog.text


@pytest.mark.parametrize("nothing", [None, []])
def test_without_anything_to_look_at_it_is_refused(nothing: Any) -> None:
    with pytest.raises(ValueError, match="pass an `eval_dataset`"):
        Probe(nothing, asked, 9, Accelerator(cpu=True))


class Rank:
    """Of three; gathers what it has itself."""

    num_processes = 3
    device = torch.device("cpu")

    def __init__(self, process_index: int) -> None:
        self.process_index = process_index

    def gather(self, own: Tensor) -> Tensor:
        return own


def test_ranks_score_as_many_batches_each_and_every_batch_counts_once() -> None:
    shares = [Probe(batches(5), asked, 9, Rank(rank))._own_share() for rank in range(3)]
    assert [len(share) for share in shares] == [2, 2, 2]
    assert sum(counts for share in shares for _, counts in share) == 5
    counted = [batch["input_ids"] for share in shares for batch, counts in share if counts]
    assert sum(map(len, counted)) == 24
