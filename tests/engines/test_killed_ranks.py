"""A rank that dies ends the others, and the run goes on from its last whole checkpoint, under every engine."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import killed_ranks
import pytest
import torch
from killed_ranks import ENDINGS
from launcher import NUM_RANKS, RanksFailed, run_on_two_ranks
from tiny_runs import build, largest_difference, weights_of
from torch import Tensor

from hf_dwt.checkpoints import is_whole

pytestmark = pytest.mark.slow

MAX_DIFFERENCE = 1e-6


@dataclass(frozen=True)
class Failure:
    """How a run has ended.

    Attributes:
        said: Output of both ranks and of torchrun.
        seconds: From its start on.
        left: Its checkpoints, and whether they are whole.
    """

    said: str
    seconds: float
    left: dict[str, bool]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("killed")


@pytest.fixture(scope="module")
def failures(folder: Path) -> dict[str, Failure]:
    """What became of each run that lost a rank, or its disk."""
    told = {}
    for what, engine in [*(("killed", engine) for engine in ENDINGS), ("full disk", "zero2")]:
        started = time.perf_counter()
        with pytest.raises(RanksFailed) as failure:
            run_on_two_ranks(killed_ranks.__file__, [folder, what, engine], timeout=100)
        seconds, run = time.perf_counter() - started, folder / engine / what.split()[0]
        left = {path.name: is_whole(path) for path in run.glob("checkpoint-*")}
        told[f"{engine} {what}"] = Failure(str(failure.value), seconds, left)
    return told


@pytest.fixture(scope="module")
def results(folder: Path, failures: dict[str, Failure]) -> Callable[[str], list[Any]]:
    """What each rank has kept of a run, after the runs that were never killed and those that were resumed."""
    for what in ("never killed", "resumed"):
        run_on_two_ranks(killed_ranks.__file__, [folder, what, *ENDINGS])
    run_on_two_ranks(killed_ranks.__file__, [folder, "alone", "zero2"], num_ranks=1)
    return lambda name: [torch.load(path) for path in sorted(folder.glob(f"{name}.*.pt"))]


@pytest.mark.parametrize("engine", ENDINGS)
def test_a_rank_that_dies_ends_the_others_within_a_minute_and_is_named(
    engine: str, failures: dict[str, Failure]
) -> None:
    said, seconds = failures[f"{engine} killed"].said, failures[f"{engine} killed"].seconds
    # Of the whole run, its start included: nothing has waited for a timeout of the ranks' own.
    assert seconds < 60
    assert "Exit code: 1." in said
    (dead,) = re.findall(r"dying is (\d+)", said)
    cause = said[said.index("Root Cause") :]
    assert re.search(r"rank\s*: 1 \(local_rank: 1\)", cause)
    assert f"Signal 9 (SIGKILL) received by PID {dead}" in cause


@pytest.mark.parametrize("engine", ENDINGS)
def test_the_checkpoint_before_the_death_is_whole_and_a_later_one_is_known_to_be_broken(
    engine: str, failures: dict[str, Failure]
) -> None:
    broken = {"checkpoint-4": False} if ENDINGS[engine] == "in a save" else {}
    assert failures[f"{engine} killed"].left == {"checkpoint-2": True, **broken}


@pytest.mark.parametrize("engine", ENDINGS)
def test_a_killed_run_resumes_to_the_weights_of_one_that_was_not(
    engine: str, results: Callable[[str], list[dict[str, Tensor]]]
) -> None:
    resumed = results(f"{engine} killed")
    assert len(resumed) == NUM_RANKS
    for rank, expected in zip(resumed, results(f"{engine} whole"), strict=True):
        assert largest_difference(rank, expected) < MAX_DIFFERENCE
    start = weights_of(build("masked", hidden_size=killed_ranks.HIDDEN_SIZES[engine]))
    moved = max((value - start[name]).abs().max() for name, value in resumed[0].items() if name in start)
    assert moved > 0.01


# A full disk


def test_a_full_disk_loses_nothing_that_was_saved_before(
    failures: dict[str, Failure], results: Callable[[str], list[dict[str, Tensor]]]
) -> None:
    failure = failures["zero2 full disk"]
    assert re.search(r"File too large|unexpected pos|file write failed|PytorchStreamWriter", failure.said)
    assert failure.left == {"checkpoint-2": True, "checkpoint-4": False}
    for rank, expected in zip(results("zero2 full"), results("zero2 whole"), strict=True):
        assert largest_difference(rank, expected) < MAX_DIFFERENCE


# Another number of ranks


def test_another_number_of_ranks_is_refused_with_a_command_that_makes_it_fit(
    results: Callable[[str], list[Any]],
) -> None:
    (refusal,) = results("refusal")
    assert "was divided among 2 ranks, this run has 1" in refusal
    assert "`python -m deepspeed.checkpoint.ds_to_universal --inject_missing_state --input_folder " in refusal
    (alone,), (two, _) = results("alone"), results("divided")
    # The true gradient of a key's bias is 0: Adam makes steps of what is left of it by rounding, in another order here.
    alone, two = ({name: each[name] for name in each if not name.endswith("key.bias")} for each in (alone, two))
    assert largest_difference(alone, two) < 1e-5
