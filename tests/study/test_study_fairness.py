"""What the arms of a pair share: batches, masks, initial weights, the test set; and what a cell's figures are of."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_study import part, study

from benchmarks.study.cells import Cell, expand
from benchmarks.study.inputs import prepare
from benchmarks.study.recipes import recipe_of
from benchmarks.study.running import Job, carry_out_job, read_with_test, score
from hf_dwt.cli.recipe import Recipe, make_recipe
from hf_dwt.cli.runs import make_trainer
from hf_dwt.data import MaskingCollator

ARMS = {"alone": {}, "taught": {"teacher": "weak"}, "grown": {"start": "exact"}}
ARMS |= {"handed over": {"teacher": "weak", "weighting": "handover", "soft_loss_weight": None}}
STUDY = study(
    parts=[part(seeds=(1, 2), arms=ARMS)],
    defaults={"inputs": "molecules", "size": "large", "steps": 30, "start": "random", "teacher": None}
    | {"learning_rate": 1e-3, "weighting": "linear", "grown_from": "weak"},
)
CELLS = {each.cell.id: each.cell for each in expand(STUDY, lambda _: None)}


class Recording(MaskingCollator):
    """Keeps what it has made for training."""

    made: list[torch.Tensor]

    def __call__(self, features: Any) -> dict[str, torch.Tensor]:
        batch = super().__call__(features)
        if self.follows_epochs:
            self.made.append(torch.stack([batch["input_ids"], batch["labels"]]))
        return batch


@pytest.fixture
def _in_the_studys_folder(tmp_path: Path) -> Iterator[None]:
    """Data and a teacher are here."""
    before = Path.cwd()
    prepare(STUDY, tmp_path)
    try:
        carry_out_job(job(CELLS["teachers/weak/seed-7"], tmp_path))
        yield
    finally:
        os.chdir(before)


def job(cell: Cell, folder: Path) -> Job:
    recipe = recipe_of(STUDY, cell)
    return Job(cell=cell.to_dict(), recipe=recipe, commit="none", folder=str(folder), num_test_examples=40)


def recipe_named(name: str) -> Recipe:
    return make_recipe(recipe_of(STUDY, CELLS[name]))


def batches_of(name: str) -> list[torch.Tensor]:
    recipe = recipe_named(name)
    seed = CELLS[name].seed
    inputs, _ = read_with_test(recipe, seed, 40)
    collator = Recording(inputs.tokenizer, seed=seed)
    collator.made = []
    trainer = make_trainer(recipe, replace(inputs, collator=collator), with_teacher=inputs.teacher is not None)
    trainer.train()
    # Those that were looked at before the first step are left out.
    return collator.made[-30:]


@pytest.mark.usefixtures("_in_the_studys_folder")
def test_arms_of_a_seed_see_the_same_batches_with_the_same_masks() -> None:
    alone = batches_of("part/alone/seed-1")
    for arm in list(ARMS)[1:]:
        own = batches_of(f"part/{arm}/seed-1")
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(own, alone, strict=True)), arm
    other = batches_of("part/alone/seed-2")
    assert not all(torch.equal(ours, theirs) for ours, theirs in zip(other, alone, strict=True))


@pytest.mark.usefixtures("_in_the_studys_folder")
def test_final_losses_are_of_the_whole_test_set_with_masks_that_no_seed_changes() -> None:
    scores = []
    for seed in (1, 2):
        recipe = recipe_named("part/alone/seed-1")
        inputs, test = read_with_test(recipe, seed, 40)
        assert (len(inputs.evaluation), len(test)) == (20, 40)
        assert inputs.evaluation["input_ids"] == test["input_ids"][:20]
        trainer = make_trainer(recipe, inputs, with_teacher=False)
        scores.append(score(trainer.model, recipe, inputs, test))
    assert scores[0] == scores[1]
    assert scores[0]["num_examples"] == 40


@pytest.mark.usefixtures("_in_the_studys_folder")
def test_a_cell_can_be_repeated_by_the_command_line_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    import yaml

    from hf_dwt.cli import main

    line = carry_out_job(job(CELLS["part/taught/seed-1"], Path.cwd()))
    line["recipe"]["arguments"]["output_dir"] = "./again"
    Path("again.yaml").write_text(yaml.safe_dump(line["recipe"]))
    assert main(["train", "again.yaml"]) == 0
    capsys.readouterr()
    again = Path("again/run.json").read_text()
    assert f'"loss": {line["run"]["loss"]}' in again
