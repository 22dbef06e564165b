"""Two ranks compute what one process computes: training, evaluation, refusals and checkpoints."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rank_cases
import torch
from killed_handover import RELEASED_BEFORE
from launcher import NUM_RANKS, RanksFailed, run_on_two_ranks
from tiny_runs import KINDS, largest_difference, make_student, weights_of

MAX_DIFFERENCE = 1e-6
LOSSES = ("loss", "hard_loss", "soft_loss", "soft_loss_weight", "teacher_hard_loss", "train_gap")

Results = Callable[[str], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What each rank has saved of a case, after both have run all of them."""
    folder = tmp_path_factory.mktemp("ranks")
    run_on_two_ranks(Path(rank_cases.__file__), [folder])
    return lambda case: [torch.load(folder / f"{case}.{rank}.pt") for rank in range(NUM_RANKS)]


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What one process computes with all eight examples of a step in its batch."""
    folder = tmp_path_factory.mktemp("one")
    return {kind: rank_cases.trained(folder, kind, batch_size=8) for kind in KINDS}


@pytest.mark.slow
@pytest.mark.parametrize("sizes", ["4", "2x2", "in parts"])
@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_train_the_weights_of_one_process(
    kind: str, sizes: str, results: Results, one_process: dict[str, dict[str, Any]]
) -> None:
    for rank in results(f"{kind} {sizes}"):
        assert rank["num_ranks"] == NUM_RANKS
        assert largest_difference(rank["weights"], one_process[kind]["weights"]) < MAX_DIFFERENCE
        assert largest_difference(rank["weights"], weights_of(make_student(kind))) > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("sizes", ["4", "2x2", "in parts"])
@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_log_the_losses_of_one_process(
    kind: str, sizes: str, results: Results, one_process: dict[str, dict[str, Any]]
) -> None:
    expected = one_process[kind]["logs"]
    for rank in results(f"{kind} {sizes}"):
        assert len(rank["logs"]) == len(expected) == 4
        for logged, wanted in zip(rank["logs"], expected, strict=True):
            losses = {name: wanted[name] for name in LOSSES}
            assert {name: logged[name] for name in LOSSES} == pytest.approx(losses, abs=MAX_DIFFERENCE, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("mistake", ["without factor", "counts own rank"])
def test_a_mistake_in_the_mean_over_ranks_would_change_weights(
    mistake: str, results: Results, one_process: dict[str, dict[str, Any]]
) -> None:
    assert largest_difference(results(mistake)[0]["weights"], one_process["masked"]["weights"]) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("case", ["evaluation", "evaluation with logits"])
@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_with_an_uneven_last_batch_evaluate_to_the_figures_of_one_process(
    kind: str, case: str, results: Results, tmp_path: Path
) -> None:
    expected = rank_cases.CASES[f"{kind} {case}"](tmp_path)
    assert {"eval_loss", "eval_accuracy", "eval_gap", "eval_soft_loss"} <= expected.keys()
    assert 0.1 < expected["eval_agreement"] < 1.0
    for rank in results(f"{kind} {case}"):
        assert rank == pytest.approx(expected, abs=MAX_DIFFERENCE)


@pytest.mark.slow
def test_the_examples_that_fill_up_the_last_batch_would_change_the_figures(results: Results) -> None:
    with_repeats, without = (results(case)[0] for case in ("evaluation with repeats", "masked evaluation"))
    assert abs(with_repeats["eval_loss"] - without["eval_loss"]) > 1e-3


@pytest.mark.slow
def test_a_bad_teacher_is_refused_on_both_ranks(results: Results) -> None:
    for rank in results("bad teacher"):
        assert "ValueError" in rank["error"]
        assert "no better than guessing by token frequency" in rank["error"]
        assert rank["step"] == 0


@pytest.mark.slow
def test_a_teacher_that_breaks_on_one_rank_stops_both(results: Results) -> None:
    for rank in results("teacher that breaks on one rank"):
        assert (
            "FloatingPointError: The teacher (a model passed in memory) gave logits that are not finite"
            in (rank["error"])
        )
        assert rank["step"] == 2


@pytest.mark.slow
def test_two_ranks_resume_to_the_very_weights_of_an_uninterrupted_run(results: Results) -> None:
    one, other = results("resumed")
    assert largest_difference(one["resumed"], one["uninterrupted"]) == 0
    assert largest_difference(one["resumed"], other["resumed"]) == 0


@pytest.mark.slow
def test_two_ranks_let_the_teacher_go_together_and_resume_around_that_to_the_very_weights(results: Results) -> None:
    one, other = results("handed over")
    whole = one["none"]
    assert whole["released"] == other["none"]["released"] == [RELEASED_BEFORE]
    assert len(whole["gaps"]) == RELEASED_BEFORE // 2 + 1
    for rank in (one, other):
        for name in ("none", *rank_cases.RESUMED_FROM):
            run = rank[name]
            assert largest_difference(run["weights"], whole["weights"]) == 0
            assert (run["gaps"], run["released"]) == (whole["gaps"], whole["released"])
            assert all(run["record"][each] == whole["record"][each] for each in ("gaps", "teacher_loss"))


@pytest.mark.slow
def test_a_checkpoint_becomes_whole_after_the_last_rank_has_written_its_part(results: Results) -> None:
    assert {"trainer_state.json", "rng_state_0.pth", "rng_state_1.pth"} <= results("slow rank")[0]["seen"]
    without_waiting = results("slow rank, no waiting")[0]["seen"]
    assert "trainer_state.json" in without_waiting
    assert "rng_state_1.pth" not in without_waiting


# The launcher

SAYS_WHO_IT_IS = """
import os, pathlib, sys, time
rank = os.environ["RANK"]
print("rank", rank, "of", os.environ["WORLD_SIZE"], flush=True)
pathlib.Path(sys.argv[1], rank).write_text(str(os.getpid()))
time.sleep(1)
"""


def is_running(pid: int) -> bool:
    """Whether a process is there and has not ended; one that nobody has waited for has."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize(
    ("ending", "timeout", "message"),
    [
        ("sys.exit(3) if rank == '1' else time.sleep(100)", 100, r"Exit code: 1\."),
        ("time.sleep(100)", 15, r"Exit code: none within 15 seconds\."),
    ],
    ids=["fails", "hangs"],
)
def test_ranks_that_fail_or_hang_are_ended_and_their_output_shown(
    ending: str, timeout: int, message: str, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SAYS_WHO_IT_IS + ending)
    with pytest.raises(RanksFailed, match=message) as failure:
        run_on_two_ranks(script, [tmp_path], timeout=timeout)
    for rank in range(NUM_RANKS):
        assert f"rank {rank} of 2" in str(failure.value)
        assert not is_running(int((tmp_path / str(rank)).read_text()))
