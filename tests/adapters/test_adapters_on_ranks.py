"""Two ranks train the adapter that one process trains, under DDP and under ZeRO-3, the base teaching or another."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import adapter_ranks
import pytest
import torch
from adapted_runs import make_base
from launcher import NUM_RANKS, run_on_two_ranks
from peft import PeftModel
from tiny_runs import collator, examples, largest_difference

from hf_dwt.positions import without_labels

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.* is deprecated:FutureWarning"),
]

EQUAL = 1e-5

Ranks = Callable[[str], list[dict[str, Any]]]


@pytest.fixture(scope="module", params=adapter_ranks.ENGINES)
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    """What each rank has saved of a case, and where, after both have run all of them on one engine."""
    engine, folder = request.param, tmp_path_factory.mktemp(request.param)
    run_on_two_ranks(Path(adapter_ranks.__file__), [folder, engine])

    def of(case: str) -> list[dict[str, Any]]:
        found = [torch.load(folder / f"{engine} {case}.{rank}.pt") for rank in range(NUM_RANKS)]
        return [{**each, "folder": folder / f"{engine} {case}", "engine": engine} for each in found]

    return of


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The same with all eight examples of a step in the batch of one process."""
    folder = tmp_path_factory.mktemp("one")
    return {case: adapter_ranks.run(case, folder / case, batch_size=8) for case in adapter_ranks.CASES}


@pytest.mark.parametrize("case", adapter_ranks.CASES)
def test_two_ranks_train_the_adapter_of_one_process(
    case: str, ranks: Ranks, one_process: dict[str, dict[str, Any]]
) -> None:
    expected = one_process[case]
    for rank in ranks(case):
        assert rank["num_ranks"] == NUM_RANKS
        assert (rank["kind_of_run"] == "DEEPSPEED") is rank["is_divided"] is (rank["engine"] == "zero3")
        assert largest_difference(rank["trained"], expected["trained"]) < EQUAL
        assert largest_difference(rank["fixed"], expected["fixed"]) < 1e-7
        assert rank["modes"] == expected["modes"]
        assert len(rank["logs"]) == 4
        for logged, wanted in zip(rank["logs"], expected["logs"], strict=True):
            assert logged == pytest.approx(wanted, abs=EQUAL)
        assert rank["evaluated"] == pytest.approx(expected["evaluated"], abs=EQUAL)
        assert rank["record"]["num_parameters"] == expected["record"]["num_parameters"]
        assert rank["record"]["adapter"] == expected["record"]["adapter"]


def test_what_teaches_makes_a_difference(one_process: dict[str, dict[str, Any]]) -> None:
    assert largest_difference(one_process["base"]["trained"], one_process["copy"]["trained"]) < EQUAL
    assert largest_difference(one_process["base"]["trained"], one_process["alone"]["trained"]) > 1e-3


def test_the_saved_adapter_is_the_one_that_was_trained(ranks: Ranks) -> None:
    folder, trained = ranks("base")[0]["folder"], ranks("base")[0]["trained"]
    assert not (folder / "model.safetensors").exists()
    loaded = PeftModel.from_pretrained(make_base(), folder)
    weights = {name: each for name, each in loaded.named_parameters() if name in trained}
    assert largest_difference(weights, trained) < 1e-7
    batch = without_labels(collator("masked")(list(examples())))
    with torch.no_grad():
        adapted, merged = loaded.eval()(**batch).logits, loaded.merge_and_unload()(**batch).logits
    torch.testing.assert_close(adapted, merged, atol=1e-4, rtol=1e-4)
