"""Students come from the teacher's configuration or from an architecture's."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, GPT2Config

from hf_dwt.cli.recipe import Recipe, make_recipe
from hf_dwt.cli.students import build_student, new_model, objective_of, read_teacher_config, student_config
from hf_dwt.costs import num_configured_parameters
from hf_dwt.sections import RecipeError
from hf_dwt.teacher import Teacher

TEACHER = BertConfig(
    architectures=["BertForMaskedLM"],
    vocab_size=30,
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=16,
)


def recipe(**student: Any) -> Recipe:
    return make_recipe({"student": student, "data": {"source": "a.txt"}})


def test_what_the_recipe_does_not_say_is_the_teachers() -> None:
    config = student_config(recipe(num_hidden_layers=3), TEACHER)
    assert (config.num_hidden_layers, config.hidden_size, config.vocab_size) == (3, 8, 30)


def test_another_architecture_has_its_defaults_and_the_teachers_vocabulary() -> None:
    config = student_config(recipe(model_type="distilbert", n_layers=2), TEACHER)
    assert (config.model_type, config.n_layers, config.dim, config.vocab_size) == ("distilbert", 2, 768, 30)


def test_fields_may_go_by_their_common_names() -> None:
    config = student_config(recipe(hidden_size=64), GPT2Config(n_embd=32, n_head=2, vocab_size=30))
    assert config.n_embd == 64


def test_a_field_that_the_architecture_lacks_is_named() -> None:
    with pytest.raises(RecipeError, match="Did you mean `num_hidden_layers`"):
        student_config(recipe(num_hiden_layers=3), TEACHER)
    with pytest.raises(RecipeError, match="neither `model_type` nor `name`"):
        student_config(recipe(num_hidden_layers=3), None)


def test_the_objective_is_the_teachers_or_the_recipes_own() -> None:
    assert objective_of(recipe(num_hidden_layers=3), TEACHER) == "masked"
    with pytest.raises(RecipeError, match="set `objective`"):
        objective_of(recipe(num_hidden_layers=3), None)


def test_folders_at_home_may_be_named_by_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    TEACHER.save_pretrained(tmp_path / "small")
    assert student_config(recipe(name="~/small"), None).hidden_size == 8
    of_teacher = make_recipe(
        {"student": {"num_hidden_layers": 2}, "teacher": {"name": "~/small"}, "data": {"source": "a.txt"}}
    )
    assert read_teacher_config(of_teacher).hidden_size == 8  # type: ignore[union-attr]


def test_initial_weights_depend_on_the_seed_alone() -> None:
    settings = recipe(num_hidden_layers=2)
    config = student_config(settings, TEACHER)
    one, same, other = (build_student(settings, config, "masked", seed) for seed in (0, 0, 1))
    table = "bert.embeddings.word_embeddings.weight"
    assert torch.equal(one.state_dict()[table], same.state_dict()[table])
    assert not torch.equal(one.state_dict()[table], other.state_dict()[table])


def test_parameters_are_counted_without_a_model() -> None:
    assert num_configured_parameters(TEACHER, "masked") == new_model(TEACHER, "masked").num_parameters()


def growing(method: str = "exact", **student: Any) -> Recipe:
    content = {"teacher": {"name": "here"}, "growth": {"method": method}, "data": {"source": "a.txt"}}
    return make_recipe({**content, "student": student})


def test_a_recipe_grows_its_student_from_the_teacher() -> None:
    settings = growing(hidden_size=16)
    teacher = Teacher(new_model(TEACHER, "masked"))
    config = student_config(settings, TEACHER)
    assert (config.hidden_size, config.num_attention_heads, config.intermediate_size) == (16, 4, 32)
    student = build_student(settings, config, "masked", 0, teacher)
    ids = torch.arange(4, 20)[None]
    torch.testing.assert_close(student.eval()(ids).logits, teacher.model(ids).logits, rtol=0, atol=1e-5)


def test_growth_needs_a_teacher_of_the_same_architecture() -> None:
    with pytest.raises(RecipeError, match="the recipe has no `teacher`"):
        make_recipe({"student": {"n_layer": 2}, "growth": {}, "data": {"source": "a.txt"}})
    with pytest.raises(RecipeError, match="of its teacher's architecture, bert; `student` asks for 'gpt2'"):
        student_config(growing(model_type="gpt2", n_layer=2), TEACHER)
    with pytest.raises(RecipeError, match="Did you mean `method`"):
        make_recipe(
            {
                "student": {"num_hidden_layers": 2},
                "teacher": {"name": "here"},
                "growth": {"metod": 1},
                "data": {"source": "a"},
            }
        )
