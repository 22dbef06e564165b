"""Recipes are checked to the last key before anything is loaded."""

import inspect
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from transformers import BertConfig

from hf_dwt import cache_teacher
from hf_dwt.cli.recipe import CacheSection, make_recipe, read_recipe
from hf_dwt.sections import RecipeError

RECIPES = sorted((Path(__file__).parents[2] / "trainer_configs" / "recipes").glob("*.yaml"))
PLAIN: dict[str, Any] = {"student": {"model_type": "bert"}, "data": {"source": "a.txt"}, "objective": "masked"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_can_be_read(path: Path) -> None:
    recipe = read_recipe(path)
    assert recipe.student
    assert recipe.data.source


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arguments": {"learnin_rate": 1e-4}}, "Did you mean `learning_rate`"),
        ({"techer": "x"}, "Did you mean `teacher`"),
        ({"data": {"source": "a", "lenght": 3}}, "Did you mean `length`"),
        ({"student": {"model_type": "bert", "hiden_size": 3}}, "Did you mean `hidden_size`"),
        ({"student": {"model_type": "bert", "hidden_size": -8}}, "`hidden_size` is -8: a size is at least 1"),
        ({"student": {"num_hidden_layers": 0}}, "`num_hidden_layers` is 0: a size is at least 1"),
        ({"student": {"model_type": "brt"}}, "There is no `model_type` 'brt'"),
        ({"data": {"length": 8}}, "`data` has no `source`"),
        ({"data": {"source": "a", "length": "long"}}, "should be a whole number"),
        ({"arguments": {"max_steps": "many"}}, "`arguments.max_steps` should be"),
        ({"data": {"source": "a", "form": "pages"}}, "'blocks' or 'sentences'"),
        ({"data": {"source": "a", "num_evaluation_examples": 0}}, "`data.num_evaluation_examples` is 0: .* at least 1"),
        ({"data": {"source": "a", "take_every": -3}}, "`data.take_every` is -3: it should be at least 1"),
        ({"data": {"source": [{"source": "a"}], "split": "test"}}, "`data.split` is for a `source` without mappings"),
        ({"data": {"source": {"source": "a"}, "name": "en"}}, "`data.name` is for a `source` without mappings"),
        ({"data": {"source": [{"source": "a"}, "b.txt"]}}, "`data.source` should be a mapping, got 'b.txt'"),
        ({"data": {"source": [{"source": "a", "splt": "test"}]}}, "Did you mean `split`"),
        ({"data": {"source": "a", "evaluation_source": {"name": "en"}}}, "`data.evaluation_source` has no `source`"),
        ({"data": {"source": "a", "mask_probability": 1.5}}, "`data.mask_probability` is 1.5: .* at most 1"),
        ({"data": {"source": "a", "mask_probability": 0}}, "`data.mask_probability` is 0: .* above 0"),
        ({"data": {"source": "a", "length": 7}}, "`data.length` is 7: it should be at least 8"),
        ({"teacher": {"name": "a"}, "cache": {"folder": "kept", "top_k": 0}}, "`cache.top_k` is 0: .* at least 1"),
        ({"teacher": {"name": "a"}, "cache": {"folder": "kept", "epochs": 0}}, "`cache.epochs` is 0: .* at least 1"),
        ({"teacher": {"name": "a"}, "cache": {"folder": "k", "tail_samples": -1}}, "`cache.tail_samples` is -1: .* 0"),
        ({"student": {"model_type": "bert", "dtype": "bf16"}}, "`student.dtype` should be 'float32' or 'bfloat16'"),
        ({"objective": "both"}, "'masked' or 'causal'"),
        ({"cache": {"folder": "kept"}}, "`cache` keeps what the teacher says, but the recipe has no `teacher`"),
        ({"cache": {"folder": "kept", "topk": 3}}, "Did you mean `top_k`"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_recipe(PLAIN | changes)


def test_a_size_by_which_a_part_is_left_out_is_left_to_the_architecture() -> None:
    student = {"model_type": "granitemoeshared", "shared_intermediate_size": 0}
    assert make_recipe(PLAIN | {"student": student}).student == student


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


MINIMAL = "student: {model_type: bert}\ndata: {source: a.txt}\nobjective: masked\n"


def test_options_change_the_key_of_their_name_wherever_it_is(tmp_path: Path) -> None:
    options = ["--max-steps", "7", "--hidden_size=32", "--length", "16", "--teacher.name", "./small"]
    recipe = read_recipe(write(tmp_path, MINIMAL), [*options, "--learning-rate", "5e-4"])
    assert recipe.arguments == {"max_steps": 7, "learning_rate": 5e-4}
    assert recipe.student["hidden_size"] == 32
    assert recipe.data.length == 16
    assert recipe.teacher is not None
    assert recipe.teacher.name == "./small"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-stepps", "7"], "Did you mean `max_steps`"),
        (["--name", "x"], "--teacher.name, --tokenizer.name, --data.name"),
        (["--max-steps"], "`--max-steps` has no value"),
        (["--use-cpu", "--max-steps", "3"], "`--use-cpu` has no value: write `--use-cpu VALUE`, of a switch `true`"),
        (["max_steps", "3"], "is no option"),
        (["--objective.x", "1"], "`objective` has no keys: write `--objective VALUE`"),
        (["--student", "large", "--student.hidden_size", "3"], "`student` should be a mapping, got 'large'"),
        (["--student", "large", "--hidden_size", "3"], "`student` should be a mapping, got 'large'"),
    ],
)
def test_options_that_are_wrong_are_named(options: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=message):
        read_recipe(write(tmp_path, MINIMAL), options)


def test_a_field_of_the_student_may_be_one_of_its_teachers(tmp_path: Path) -> None:
    BertConfig().save_pretrained(tmp_path / "small")
    text = f"student: {{num_hidden_layers: 2}}\nteacher: {tmp_path / 'small'}\ndata: {{source: a.txt}}\n"
    assert read_recipe(write(tmp_path, text), ["--num-attention-heads", "4"]).student["num_attention_heads"] == 4
    with pytest.raises(RecipeError, match="Did you mean `num_attention_heads`"):
        read_recipe(write(tmp_path, text), ["--num-attention-haeds", "4"])
    elsewhere = text.replace(str(tmp_path / "small"), "me/small")
    with pytest.raises(RecipeError, match=r"no option `--num_heads`. A field .* `--student\.num_heads`"):
        read_recipe(write(tmp_path, elsewhere), ["--num-heads", "4"])


def test_values_may_begin_with_dashes(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, MINIMAL), ["--max-steps", "-1", "--run-name=--first"])
    assert recipe.arguments == {"max_steps": -1, "run_name": "--first"}


def test_exponents_without_a_point_are_numbers(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, MINIMAL + "arguments: {learning_rate: 5e-4}\n"))
    assert recipe.arguments["learning_rate"] == 5e-4


def test_no_is_a_word_and_true_is_not(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, MINIMAL + "arguments: {save_strategy: no, bf16: true}\n"))
    assert recipe.arguments == {"save_strategy": "no", "bf16": True}


@pytest.mark.parametrize("text", ["- a list", "student: [unclosed", "just text"])
def test_what_is_no_recipe_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no recipe|not YAML"):
        read_recipe(write(tmp_path, text))


def test_a_missing_file_is_told() -> None:
    with pytest.raises(RecipeError, match=r"no recipe 'nowhere\.yaml'"):
        read_recipe("nowhere.yaml")


def test_a_cache_has_the_defaults_of_python() -> None:
    parameters = inspect.signature(cache_teacher).parameters
    assert {each.name for each in fields(CacheSection)} == {"folder", "top_k", "tail_samples", "epochs", "dtype"}
    for each in fields(CacheSection)[1:]:
        assert each.default == parameters[each.name].default
