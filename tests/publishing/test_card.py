import json
from inspect import signature
from pathlib import Path

import pytest
import yaml
from trainer_runs import make_trainer
from transformers import Trainer

from hf_dwt import DWTTrainer
from hf_dwt.publishing.card import card_of
from hf_dwt.publishing.comparison import add_comparison

RECORD = {
    "kind": "causal",
    "student": {
        "architecture": "GPT2LMHeadModel",
        "num_parameters": 1000,
        "config": {"n_layer": 4, "n_embd": 64},
        "growth": None,
        "started_from": None,
        "commit": None,
    },
    "teacher": None,
    "objective": None,
    "vocabulary": None,
    "data": {"sources": [], "num_examples": None},
    "training": {"steps": 10, "tokens": 5000, "seconds": 12.34, "teacher_share": None},
    "results": None,
    "baseline": [],
    "versions": {"torch": "2.13"},
    "command": "python train.py",
    "recipe": None,
}
TEACHER = {"architecture": "GPT2LMHeadModel", "num_parameters": 400, "held_out_loss": 2.0}
LINE = [[0.0, 4.0], [1.0, 1.0]]
OBJECTIVE = {"weighting": "linear", "temperature": 1.0, "hard_loss_weight": LINE, "soft_loss_weight": LINE}


def metadata(card: str) -> dict[str, object]:
    return yaml.safe_load(card.split("---\n")[1])


@pytest.mark.parametrize("teacher", [None, "hub", "folder", "memory"])
@pytest.mark.parametrize("results", [None, {"eval_loss": 2.5, "eval_accuracy": 0.4}])
def test_no_card_has_an_empty_link_or_says_that_something_is_unknown(
    teacher: str | None, results: dict[str, float] | None
) -> None:
    places = {
        "hub": {"name": "me/small", "commit": "a" * 40},
        "folder": {"name": "/home/me/small", "commit": None},
        "memory": {"name": None, "commit": None},
    }
    record = {**RECORD, "results": results}
    if teacher is not None:
        record |= {"teacher": {**TEACHER, **places[teacher]}, "objective": OBJECTIVE}
    card = card_of(record, "student", has_curves=False)
    for part in ("]()", "unknown", "None", "/home/me"):
        assert part not in card
    assert ("base_model" in metadata(card)) is (teacher == "hub")
    assert ("model-index" in metadata(card)) is (results is not None)
    assert metadata(card)["pipeline_tag"] == "text-generation"


def test_what_the_teacher_brought_over_the_student_alone_is_said() -> None:
    twins = [{"name": "alone, equal steps", "steps": 10, "loss": 2.75, "accuracy": 0.3}]
    twins += [{"name": "alone, equal cost", "steps": 12, "loss": 2.25, "accuracy": 0.3}]
    card = card_of({**RECORD, "results": {"eval_loss": 2.5}, "baseline": twins}, "student", has_curves=True)
    assert "alone, equal steps (10 steps), has a loss of 2.7500; with its teacher it is 0.2500 nats lower." in card
    assert "alone, equal cost (12 steps), has a loss of 2.2500; with its teacher it is 0.2500 nats higher." in card
    assert "](training_curves.png)" in card


def test_a_teacher_larger_than_its_student_is_called_so() -> None:
    teacher = {**TEACHER, "num_parameters": 2000, "name": None, "commit": None}
    card = card_of({**RECORD, "teacher": teacher, "objective": OBJECTIVE}, "student", has_curves=False)
    assert "a model 2.00 times its size: ordinary distillation" in card


def test_what_was_read_from_the_hub_is_named_and_linked() -> None:
    sources = [{"name": "me/words", "revision": None}]
    card = card_of(
        {
            **RECORD,
            "data": {"sources": sources, "num_examples": 7},
            "results": {"eval_loss": 2.5},
            "recipe": {"student": {}},
        },
        "student",
        has_curves=False,
        datasets=["me/more"],
    )
    assert metadata(card)["datasets"] == ["me/more", "me/words"]
    assert "7 examples of [me/words](http" in card
    assert "With `dwt_recipe.json` of this repository:" in card


def test_of_a_run_in_a_notebook_that_is_said_and_no_command_shown() -> None:
    card = card_of({**RECORD, "command": None}, "student", has_curves=False)
    assert "It was trained in a notebook, which is not part of this repository." in card
    assert "```" not in card
    assert "None" not in card


def test_where_it_started_is_claimed_only_where_it_is_known() -> None:
    named = {**RECORD["student"], "started_from": "me/start", "commit": "c" * 40}
    perhaps = card_of({**RECORD, "student": named}, "student", has_curves=False)
    assert "from its trained weights, or from its configuration and at random" in perhaps
    assert "base_model" not in metadata(perhaps)
    surely = card_of({**RECORD, "student": named, "recipe": {"student": {"name": "me/start"}}}, "s", has_curves=False)
    assert "It started from the trained weights of `me/start`." in surely
    assert metadata(surely)["base_model"] == "me/start"


@pytest.mark.parametrize(
    ("teacher", "told"),
    [
        ({"name": "me/small", "commit": "a" * 40}, "It was grown from its teacher (width"),
        ({"name": "me/small", "commit": "b" * 40}, "It was grown from a smaller model, the teacher of that growth (w"),
        ({"name": None, "commit": None}, "It was grown from a smaller model, the teacher of that growth (width"),
        (None, "It was grown from a smaller model, the teacher of that growth (width"),
    ],
)
def test_a_student_is_grown_from_its_teacher_only_if_the_same_model_has_taught_it(
    teacher: dict[str, str | None] | None, told: str
) -> None:
    growth = {
        "teacher": f"me/small@{'a' * 40}",
        "width": "exact",
        "depth": "identity",
        "outcome": "equal to the teacher",
    }
    record = {**RECORD, "student": {**RECORD["student"], "growth": growth}}
    if teacher is not None:
        record |= {"teacher": {**TEACHER, **teacher}, "objective": OBJECTIVE}
    assert told in card_of(record, "student", has_curves=False)


def test_twins_that_are_known_stay_in_the_record_of_a_run_that_is_taken_up_without_them(tmp_path: Path) -> None:
    twins = [{"name": "alone, equal steps", "steps": 10, "loss": 2.75, "accuracy": 0.3}]
    known = {**RECORD, "results": {"eval_loss": 2.5}, "baseline": [], "arguments": {}}
    (tmp_path / "dwt_recipe.json").write_text(json.dumps(known))
    for given in (twins, []):
        add_comparison(tmp_path, given, "student")
        assert json.loads((tmp_path / "dwt_recipe.json").read_text())["baseline"] == twins
    assert "The same student alone, equal steps" in (tmp_path / "README.md").read_text()


# By the trainer


def test_what_a_card_takes_comes_in_the_order_of_the_stock_trainer() -> None:
    ours, theirs = (list(signature(each.create_model_card).parameters) for each in (DWTTrainer, Trainer))
    assert ours == theirs


def test_what_the_record_knows_is_warned_about_by_name_and_the_rest_is_in_the_card(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = make_trainer(tmp_path)
    trainer.create_model_card("en", "mit", "toy", dataset_tags="me/words")
    assert "have no effect" not in caplog.text
    trainer.create_model_card("en", "mit", "toy", "mine", "me/start", dataset_tags="me/words", dataset="Words")
    assert "made from the record of the run: `finetuned_from`, `dataset` have no effect" in caplog.text
    card = (tmp_path / "README.md").read_text()
    assert "# mine\n" in card
    told = metadata(card)
    assert (told["language"], told["license"], told["datasets"]) == ("en", "mit", ["me/words"])
    assert "toy" in told["tags"]


def test_a_name_that_no_card_has_is_refused_before_anything_is_saved(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    for call in (trainer.create_model_card, trainer.push_to_hub):
        with pytest.raises(TypeError, match="unexpected keyword argument 'licence'"):
            call(licence="mit")
    assert not list(tmp_path.iterdir())
