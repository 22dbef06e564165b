"""Every engine trains on two ranks what one process trains, wherever the teacher is kept."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import equality_cases
import placement_cases
import pytest
import run_cases
import torch
import yaml
from engines import ENGINES, zero_config
from equality_cases import PLACES, WEIGHTINGS
from launcher import NUM_RANKS, run_on_two_ranks
from placement_cases import WAYS, save_models
from tiny_runs import KINDS, largest_difference
from torch import Tensor

pytestmark = pytest.mark.slow

MAX_DIFFERENCE = 1e-5
MAX_DIFFERENCE_IN_BFLOAT16 = 5e-3
SPAWNED_TOGETHER = (("ddp", "zero0", "zero1", "zero2"), ("zero3",), ("fsdp2",))
TAUGHT = ("soft_loss", "teacher_hard_loss", "train_gap")
WRAPPERS = {"ddp": "DistributedDataParallel", "fsdp2": "FSDPBertForMaskedLM"}
PLACED = [(engine, place) for engine in ENGINES for place in ("replicated", *PLACES.get(engine, ()))]
RUNS = [(engine, place, kind, weighting) for engine, place in PLACED for kind in KINDS for weighting in WEIGHTINGS]

Results = Callable[[str], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What each rank has saved of a case; all cases of some engines are run when the first of them is asked for."""
    folder = tmp_path_factory.mktemp("engines")
    save_models(folder)

    @cache
    def run(*engines: str) -> None:
        run_on_two_ranks(run_cases.__file__, [folder, "equality,placement", *engines], timeout=280)

    def load(case: str) -> list[dict[str, Any]]:
        run(*next(engines for engines in SPAWNED_TOGETHER if case.split()[0] in engines))
        return [torch.load(folder / f"{case}.{rank}.pt", weights_only=False) for rank in range(NUM_RANKS)]

    return load


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    """What one process computes with all eight examples of a step in its batch."""
    folder = tmp_path_factory.mktemp("one")
    return cache(lambda kind, **settings: equality_cases.trained(folder, kind, **settings))


def named_alike(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights under the names of a model that FSDP has not divided: BERT's bias has two."""
    other, usual = "cls.predictions.decoder.bias", "cls.predictions.bias"
    return {usual if name == other else name: value for name, value in weights.items()}


@pytest.mark.parametrize(("engine", "place", "kind", "weighting"), RUNS)
def test_two_ranks_train_the_weights_and_log_the_losses_of_one_process(
    engine: str, place: str, kind: str, weighting: str, results: Results, one_process: Callable[..., dict[str, Any]]
) -> None:
    expected = one_process(kind, weighting=weighting)
    for rank in results(f"{engine} {place} {kind} {weighting}"):
        assert largest_difference(named_alike(rank["weights"]), expected["weights"]) < MAX_DIFFERENCE
        assert len(rank["logs"]) == len(expected["logs"]) == 4
        for logged, wanted in zip(rank["logs"], expected["logs"], strict=True):
            names = {"loss", "hard_loss", "soft_loss_weight"} | (set(TAUGHT) if wanted["soft_loss_weight"] else set())
            assert names <= wanted.keys()
            assert (TAUGHT[0] in logged) == (TAUGHT[0] in wanted)
            assert {name: logged[name] for name in names} == pytest.approx(
                {name: wanted[name] for name in names}, abs=MAX_DIFFERENCE
            )


@pytest.mark.parametrize("kind", KINDS)
def test_the_weight_falls_to_zero_half_way_and_the_teacher_is_let_go(
    kind: str, one_process: Callable[..., dict[str, Any]], results: Results
) -> None:
    for run in (one_process(kind, weighting="to zero"), *results(f"zero3 sharded {kind} to zero")):
        assert [entry["soft_loss_weight"] > 0 for entry in run["logs"]] == [True, True, False, False]
        assert not run["teacher at the end"]
    apart = largest_difference(one_process(kind, weighting="to zero")["weights"], one_process(kind)["weights"])
    assert apart > 100 * MAX_DIFFERENCE


@pytest.mark.parametrize(("engine", "place"), PLACED)
@pytest.mark.parametrize("kind", KINDS)
def test_student_and_teacher_are_divided_as_the_engine_says(
    engine: str, place: str, kind: str, results: Results
) -> None:
    for rank in results(f"{engine} {place} {kind} linear"):
        wrapper = WRAPPERS.get(engine, "DeepSpeedEngine")
        assert rank["wrapper"] == (
            wrapper if kind == "masked" else wrapper.replace("BertForMaskedLM", "GPT2LMHeadModel")
        )
        divided = {"student": engine in ("zero3", "fsdp2"), "teacher": place == "sharded"}
        for model, is_divided in divided.items():
            assert rank[model]
            for held, total in rank[model].values():
                assert held <= -(-total // NUM_RANKS) + 1 if is_divided else held == total
        stepped, total = rank["optimiser"]
        if engine in ("ddp", "zero0"):
            assert stepped == total
        else:
            # DeepSpeed pads each share.
            assert stepped <= 0.6 * total


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
def test_heads_that_may_be_run_in_parts_train_the_same(
    engine: str, kind: str, results: Results, one_process: Callable[..., dict[str, Any]]
) -> None:
    for rank in results(f"{engine} {kind} in parts"):
        assert largest_difference(named_alike(rank["weights"]), one_process(kind)["weights"]) < MAX_DIFFERENCE


@pytest.mark.parametrize("engine", ENGINES)
def test_two_ranks_in_bfloat16_come_to_the_weights_of_one_process(
    engine: str, results: Results, one_process: Callable[..., dict[str, Any]]
) -> None:
    expected = one_process("masked", bf16=True)["weights"]
    for rank in results(f"{engine} bfloat16"):
        weights = {name: value.float() for name, value in named_alike(rank["weights"]).items()}
        assert largest_difference(weights, expected) < MAX_DIFFERENCE_IN_BFLOAT16


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_evaluate_to_the_figures_of_one_process(
    engine: str, kind: str, results: Results, tmp_path: Path
) -> None:
    expected = equality_cases.evaluated(tmp_path, kind, per_device_train_batch_size=8)
    assert {"eval_loss", "eval_accuracy", "eval_gap", "eval_soft_loss", "eval_agreement"} <= expected.keys()
    for rank in results(f"{engine} {kind} evaluation"):
        assert rank == pytest.approx(expected, abs=1e-6)


# Mistakes that would be noticed


@pytest.mark.parametrize("engine", ["ddp", "zero2"])
@pytest.mark.parametrize("mistake", ["without factor", "counts own rank"])
def test_a_mistake_in_the_mean_over_ranks_would_change_the_weights(
    engine: str, mistake: str, results: Results, one_process: Callable[..., dict[str, Any]]
) -> None:
    assert largest_difference(results(f"{engine} {mistake}")[0]["weights"], one_process("masked")["weights"]) > 1e-3


@pytest.mark.parametrize("engine", ["ddp", "zero2"])
def test_the_stock_trainer_comes_to_other_weights_on_two_ranks(engine: str, results: Results, tmp_path: Path) -> None:
    alone = equality_cases.trained_by_the_stock_trainer(tmp_path)["weights"]
    assert largest_difference(results(f"{engine} stock")[0]["weights"], alone) > 1e-2


# Teachers and students that come in other ways


@pytest.fixture(scope="module")
def taught_alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    """The same in one process."""
    folder = tmp_path_factory.mktemp("alone")
    save_models(folder)
    return cache(lambda **how: placement_cases.taught(folder / "run", "loaded", **how))


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """The same by `accelerate launch`, with ZeRO-3 in its configuration and nothing about it in the arguments."""
    folder = tmp_path_factory.mktemp("launched")
    save_models(folder)
    (folder / "zero3.json").write_text(json.dumps(zero_config(3)))
    deepspeed_config = {"deepspeed_config_file": str(folder / "zero3.json"), "zero3_init_flag": True}
    config = {"compute_environment": "LOCAL_MACHINE", "distributed_type": "DEEPSPEED", "use_cpu": True}
    config |= {"num_processes": NUM_RANKS, "num_machines": 1, "machine_rank": 0, "deepspeed_config": deepspeed_config}
    (folder / "accelerate.yaml").write_text(yaml.safe_dump(config))
    arguments = [folder, "placement", "launched"]
    run_on_two_ranks(run_cases.__file__, arguments, accelerate_config=folder / "accelerate.yaml")
    return lambda case: [torch.load(folder / f"{case}.{rank}.pt", weights_only=False) for rank in range(NUM_RANKS)]


@pytest.mark.parametrize("place", ["replicated", "sharded"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_the_engine_may_be_chosen_by_the_launcher(
    place: str, moment: str, launched: Results, taught_alone: Callable[..., dict[str, Any]]
) -> None:
    alone = taught_alone()
    for rank in launched(f"launched {place} model {moment}"):
        assert largest_difference(rank["weights"], alone["weights"]) < MAX_DIFFERENCE
        assert all((held < total) == (place == "sharded") for held, total in rank["teacher"].values() if total > 1)
        assert rank["saved"].keys() == taught_alone(loads_student=True)["saved"].keys()


WAYS_OF = [
    *[("zero3", "replicated", way, "before") for way in WAYS],
    *[("zero3", place, way, "after") for place in ("replicated", "sharded") for way in WAYS],
    *[("fsdp2", place, way, "after") for place in ("replicated", "sharded") for way in ("model", "folder")],
]


@pytest.mark.parametrize(("engine", "place", "way", "moment"), WAYS_OF)
def test_a_teacher_may_be_loaded_before_or_after_the_arguments(
    engine: str, place: str, way: str, moment: str, results: Results, taught_alone: Callable[..., dict[str, Any]]
) -> None:
    alone = taught_alone()
    for rank in results(f"{engine} {place} {way} {moment}"):
        assert largest_difference(named_alike(rank["weights"]), alone["weights"]) < MAX_DIFFERENCE
        assert all((held < total) == (place == "sharded") for held, total in rank["teacher"].values() if total > 1)
        assert rank["facts"].num_parameters == alone["facts"].num_parameters
        assert rank["identity"].fingerprint == alone["identity"].fingerprint


@pytest.mark.parametrize("place", ["replicated", "sharded"])
@pytest.mark.parametrize("way", ["model", "teacher of a model"])
def test_under_zero3_such_a_teacher_has_been_divided_when_it_was_loaded(place: str, way: str, results: Results) -> None:
    for rank in results(f"zero3 {place} {way} after"):
        assert any(held < total for held, total in rank["teacher before"].values())
    for rank in results(f"zero3 replicated {way} before"):
        assert all(held == total for held, total in rank["teacher before"].values())


def test_a_teacher_that_was_divided_can_be_cast(results: Results) -> None:
    for rank in results("zero3 half"):
        assert rank["dtype"] == torch.bfloat16
        assert all(held < total for held, total in rank["teacher"].values() if total > 1)


@pytest.mark.parametrize("engine", ["zero3", "fsdp2"])
@pytest.mark.parametrize("how", ["loaded", "grown"])
def test_a_student_that_is_loaded_or_grown_is_saved_under_its_own_names(
    engine: str, how: str, results: Results, taught_alone: Callable[..., dict[str, Any]]
) -> None:
    alone = taught_alone(grown=True) if how == "grown" else taught_alone(loads_student=True)
    assert {"bert.embeddings.LayerNorm.weight", "cls.predictions.bias"} <= alone["saved"].keys()
    for rank in results(f"{engine} student {how}"):
        assert rank["saved"].keys() == alone["saved"].keys()
        assert largest_difference(rank["saved"], alone["saved"]) < MAX_DIFFERENCE
