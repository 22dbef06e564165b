"""Students come from the teacher's configuration or from an architecture's."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, GPT2Config, Qwen2Config

from hf_dwt.cli.recipe import Recipe, make_recipe
from hf_dwt.cli.students import (
    build_student,
    check_student,
    new_model,
    objective_of,
    on_meta,
    read_teacher_config,
    student_config,
)
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


@pytest.mark.parametrize("num_layers", [1, 2, 4])
def test_what_a_class_says_of_every_layer_follows_the_depth(num_layers: int) -> None:
    kinds = ["sliding_attention", "full_attention"]
    small = {"hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1}
    teacher = Qwen2Config(vocab_size=30, num_hidden_layers=2, layer_types=kinds, sliding_window=4, **small)
    expected = {1: kinds[:1], 2: kinds, 4: [kinds[0]] * 2 + [kinds[1]] * 2}[num_layers]
    assert student_config(recipe(num_hidden_layers=num_layers), teacher).layer_types == expected
    assert student_config(recipe(num_hidden_layers=2, layer_types=kinds[::-1]), teacher).layer_types == kinds[::-1]
    if num_layers > 1:
        assert student_config(growing(num_hidden_layers=num_layers), teacher).layer_types == expected


def test_values_that_do_not_go_together_are_not_called_a_wrong_type() -> None:
    with pytest.raises(RecipeError, match=r"The values of `student` do not go together: `num_hidden_layers` \(3\)"):
        student_config(recipe(model_type="qwen2", num_hidden_layers=3, layer_types=["full_attention"] * 2), TEACHER)
    with pytest.raises(RecipeError, match="A value of `student` is of a wrong type"):
        student_config(recipe(model_type="qwen2", num_hidden_layers="many"), TEACHER)


@pytest.mark.parametrize("start", ["random", "grown", "named"])
def test_a_student_is_float32_whatever_its_teacher_is_unless_it_has_a_dtype(start: str, tmp_path: Path) -> None:
    teacher = Teacher(new_model(deepcopy(TEACHER), "masked", dtype=torch.bfloat16))
    teacher.model.save_pretrained(tmp_path)
    teacher_config = teacher.model.config
    assert str(teacher_config.dtype).endswith("bfloat16")
    own = {"name": str(tmp_path)} if start == "named" else {"num_hidden_layers": 2}
    for asked, expected in ({}, torch.float32), ({"dtype": "bfloat16"}, torch.bfloat16):
        settings = growing(**own, **asked) if start == "grown" else recipe(**own, **asked)
        config = student_config(settings, teacher_config)
        student = build_student(settings, config, "masked", 0, teacher)
        assert {each.dtype for each in student.parameters()} == {expected}


def test_a_student_that_cannot_be_made_is_told_before_any_text_is_read() -> None:
    teacher = on_meta(TEACHER, "masked")
    check_student(growing(hidden_size=16), "masked", teacher)
    with pytest.raises(ValueError, match="There is no method 'exat'"):
        check_student(growing("exat", hidden_size=16), "masked", teacher)
    with pytest.raises(ValueError, match="can grow by whole factors only"):
        check_student(growing(hidden_size=12), "masked", teacher)


@pytest.mark.parametrize(("own", "role"), [({"max_position_embeddings": 32}, "student"), ({}, "teacher")])
def test_examples_longer_than_a_model_reads_are_refused(own: dict[str, int], role: str) -> None:
    teacher = BertConfig(**{**TEACHER.to_dict(), "max_position_embeddings": 64})
    content = {"student": {"max_position_embeddings": 128, **own}, "data": {"source": "a.txt"}}
    lengths = {"student": 32, "teacher": 64}
    for length in (lengths[role], lengths[role] + 1):
        settings = make_recipe({**content, "data": {"source": "a.txt", "length": length}})
        if length == lengths[role]:
            check_student(settings, "masked", on_meta(teacher, "masked"))
            continue
        with pytest.raises(RecipeError, match=f"`data.length` is {length}, but the {role} reads at most"):
            check_student(settings, "masked", on_meta(teacher, "masked"))


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
