"""Of which weights, and of what data, a figure in the log is."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_runs import examples
from trainer_runs import make_trainer
from transformers import TrainerCallback, TrainerControl, TrainerState

from hf_dwt import DWTTrainer
from hf_dwt.publishing.results import held_out_sets, is_over, other_results_of, results_of

LOGS = [
    {"eval_loss": 3.0, "eval_gap": 1.0, "eval_runtime": 1.0, "step": 2},
    {"eval_loss": 2.0, "eval_samples_per_second": 9.0, "step": 4},
    {"loss": 1.0, "step": 5},
]
END = [{"train_runtime": 1.0, "step": 5}]


def test_results_are_those_of_the_step_without_timings() -> None:
    assert results_of(LOGS, 2) == {"eval_loss": 3.0, "eval_gap": 1.0}
    assert results_of(LOGS, 4) == {"eval_loss": 2.0}
    assert results_of(LOGS, 5) is None
    assert results_of(LOGS + END, 5) is None
    assert results_of([], 0) is None


def test_what_is_evaluated_after_the_end_are_the_weights_that_are_there_then() -> None:
    after = {"eval_loss": 2.5, "step": 5}
    assert results_of([*LOGS, *END, after], 2) == {"eval_loss": 2.5}
    assert results_of([*LOGS, *END, {"test_loss": 2.5, "step": 5}], 2) == results_of(LOGS, 2)


def test_of_weights_that_were_not_evaluated_the_last_results_come_with_their_step() -> None:
    assert other_results_of(LOGS + END) == {"step": 4, "eval_loss": 2.0}
    assert other_results_of(END) is None


def test_a_run_is_over_once_its_time_was_logged() -> None:
    assert not is_over(LOGS)
    assert is_over(LOGS + END)


def test_several_held_out_sets_are_told_from_a_loss_that_is_none_of_a_set() -> None:
    one = {"eval_a_loss": 2.0, "eval_a_perplexity": 7.4, "eval_a_soft_loss": 0.1, "eval_a_teacher_hard_loss": 2.1}
    other = {"eval_b_loss": 3.0, "eval_b_perplexity": 20.1, "eval_val_loss": 1.0}
    assert held_out_sets(one) == ["eval_a"]
    assert held_out_sets(other) == ["eval_b"]
    assert held_out_sets({"eval_loss": 1.0, "eval_soft_loss": 0.5, "eval_hard_loss": 0.5, "loss": 1.0}) == ["eval"]
    assert results_of([{**one, "step": 3}, {**other, "step": 3}], 3) == {**one, **other}


# Whole runs


class StopsAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        control.should_training_stop = state.global_step == self.step


def card_of(trainer: DWTTrainer) -> tuple[dict[str, float], str]:
    """Metrics in the card's metadata, and its text."""
    trainer.create_model_card()
    _, metadata, text = Path(trainer.args.output_dir, "README.md").read_text().split("---\n", 2)
    index = yaml.safe_load(metadata).get("model-index", [{"results": []}])
    found = [(each["dataset"].get("split", ""), each["metrics"]) for each in index[0]["results"]]
    return {f"{split} {metric['type']}".strip(): metric["value"] for split, each in found for metric in each}, text


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_a_best_model_is_published_with_its_own_loss(tmp_path: Path) -> None:
    every = {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 2, "save_steps": 2, "max_steps": 6}
    # It gets worse all the way.
    trainer = make_trainer(
        tmp_path, **every, load_best_model_at_end=True, learning_rate=40.0, eval_dataset=examples(), teacher=None
    )
    trainer.train()
    losses = {each["step"]: each["eval_loss"] for each in trainer.state.log_history if "eval_loss" in each}
    best = min(losses, key=losses.__getitem__)
    assert best < 6, "else this shows nothing"
    metrics, text = card_of(trainer)
    assert f"Its weights are those of step {best}, the best" in text
    assert trainer.evaluate()["eval_loss"] == pytest.approx(metrics["loss"], abs=1e-5)
    assert card_of(trainer)[0]["loss"] == pytest.approx(metrics["loss"], abs=1e-5)


def test_a_loss_of_an_earlier_step_is_called_so_and_is_in_no_model_index(tmp_path: Path) -> None:
    every = {"eval_strategy": "steps", "eval_steps": 2, "eval_dataset": examples()}
    trainer = make_trainer(tmp_path, max_steps=9, **every, callbacks=[StopsAt(3)])
    trainer.train()
    metrics, text = card_of(trainer)
    assert metrics == {}
    assert "Its weights, those of step 3, were not evaluated in this run. At step 2 it had" in text


def test_each_of_several_held_out_sets_is_in_the_card(tmp_path: Path) -> None:
    sets = {"easy": examples(8), "hard": examples(16)}
    trainer = make_trainer(tmp_path, max_steps=1, eval_strategy="steps", eval_steps=1, eval_dataset=sets)
    trainer.train()
    results = trainer.record()["results"]
    assert results["eval_easy_loss"] != results["eval_hard_loss"]
    metrics, text = card_of(trainer)
    assert {each.split()[0] for each in metrics} == sets.keys()
    for name in sets:
        assert metrics[f"{name} loss"] == pytest.approx(results[f"eval_{name}_loss"], abs=1e-6)
    assert "| measure | easy | hard |" in text
    assert f"| {results['eval_easy_loss']:.4f} | {results['eval_hard_loss']:.4f} |" in text
