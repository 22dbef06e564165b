"""From a recipe to its student, by configuration or with weights."""

import os
from dataclasses import asdict, replace
from typing import Any

from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    PreTrainedConfig,
    PreTrainedModel,
    set_seed,
)

from hf_dwt.cli.recipe import Recipe, config_fields, reading
from hf_dwt.factory import from_weak_teacher
from hf_dwt.hub.access import resolve_commit
from hf_dwt.language_models import AUTO_CLASSES, Kind, architecture_kind
from hf_dwt.model_files import looks_local, refuse_revision, without_conversion_service
from hf_dwt.remapping.sizes import grown_config
from hf_dwt.sections import RecipeError, check_keys, suggestion
from hf_dwt.teacher import Teacher


def pinned(recipe: Recipe) -> Recipe:
    """The recipe with the student and the tokenizer that it names at the commits that their revisions mean now.

    Whatever becomes of a branch while the run goes on, all that is read of it, by each of the twins too, is of one
    commit. A teacher is read once, and pinned then.
    """
    student, tokenizer = recipe.student, recipe.tokenizer
    if "name" in student:
        student = {**student, "revision": _commit_of(student["name"], student.get("revision"), "student")}
    if tokenizer is not None and tokenizer.name is not None:
        tokenizer = replace(tokenizer, revision=_commit_of(tokenizer.name, tokenizer.revision, "tokenizer"))
    return replace(recipe, student=student, tokenizer=tokenizer)


def _commit_of(name: str, revision: str | None, role: str) -> str | None:
    if not looks_local(name):
        return resolve_commit(name, revision, None, role=role)
    refuse_revision(name, revision)
    return None


def read_teacher_config(recipe: Recipe) -> PreTrainedConfig | None:
    """Read the teacher's configuration, not its weights."""
    if recipe.teacher is None:
        return None
    section = recipe.teacher
    revision = _commit_of(section.name, section.revision, "teacher")
    return AutoConfig.from_pretrained(
        os.path.expanduser(section.name), revision=revision or "main", trust_remote_code=section.trust_remote_code
    )


def objective_of(recipe: Recipe, teacher_config: PreTrainedConfig | None) -> Kind:
    """Tell whether the student is a masked or a causal language model.

    Raises:
        RecipeError: If neither the recipe nor a teacher says so.
    """
    kind = recipe.objective or (architecture_kind(teacher_config) if teacher_config is not None else None)
    if kind is None:
        raise RecipeError("There is no teacher whose objective to take: set `objective` to 'masked' or 'causal'.")
    return kind


def student_config(
    recipe: Recipe, teacher_config: PreTrainedConfig | None, tokenizer: Any | None = None
) -> PreTrainedConfig:
    """Configuration of the student: the recipe's fields, on top of its architecture's defaults or the teacher's.

    The vocabulary is the teacher's, else the tokenizer's, unless the recipe sets one.

    Raises:
        RecipeError: If a field is not known, or no architecture is named.
    """
    chosen = dict(recipe.student)
    if recipe.growth is not None and teacher_config is not None:
        return _grown_config(chosen, teacher_config)
    if "name" in chosen:
        check_keys("`student` with a `name`", chosen, ["name", "revision"])
        return AutoConfig.from_pretrained(**_named_student(recipe))
    model_type = chosen.pop("model_type", None)
    if model_type is None and teacher_config is None:
        raise RecipeError("`student` has neither `model_type` nor `name`, and there is no teacher to take one from.")
    settings: dict[str, Any] = _vocabulary(teacher_config, tokenizer)
    if model_type is None:
        assert teacher_config is not None
        # The name is of weights that the student does not have.
        settings = {k: v for k, v in teacher_config.to_dict().items() if k != "_name_or_path"} | settings
        model_type = teacher_config.model_type
    config_class, known = CONFIG_MAPPING[model_type], config_fields(model_type)
    for key, value in chosen.items():
        if key not in known:
            raise RecipeError(f"`student` has no key `{key}`. {suggestion(key, known)}")
        settings[config_class.attribute_map.get(key, key)] = value
    with reading("student"):
        return config_class(**settings)


def _named_student(recipe: Recipe) -> dict[str, Any]:
    """Arguments of `from_pretrained` for a student that starts from a model."""
    name, revision = os.path.expanduser(recipe.student["name"]), recipe.student.get("revision")
    return {"pretrained_model_name_or_path": name, "revision": revision or "main", "trust_remote_code": False}


def _grown_config(chosen: dict[str, Any], teacher_config: PreTrainedConfig) -> PreTrainedConfig:
    """What the teacher's configuration grows into."""
    model_type = chosen.pop("model_type", teacher_config.model_type)
    if "name" in chosen or model_type != teacher_config.model_type:
        given = chosen.get("name", model_type)
        raise RecipeError(
            f"A grown student is of its teacher's architecture, {teacher_config.model_type}; `student` asks for "
            f"{given!r}."
        )
    with reading("student"):
        return grown_config(teacher_config, None, chosen)[0]


def new_model(config: PreTrainedConfig, kind: Kind, **settings: Any) -> PreTrainedModel:
    """A language model with random weights."""
    model: PreTrainedModel = AUTO_CLASSES[kind].from_config(config, **settings)
    return model


def build_student(
    recipe: Recipe, config: PreTrainedConfig, kind: Kind, seed: int, teacher: Teacher | None = None
) -> PreTrainedModel:
    """The student: random weights that depend on the seed alone, grown ones, or those of the model that is named."""
    if recipe.growth is not None:
        assert teacher is not None
        student: PreTrainedModel = from_weak_teacher(teacher, config, seed=seed, **asdict(recipe.growth))
        return student
    if "name" in recipe.student:
        with without_conversion_service():
            named: PreTrainedModel = AUTO_CLASSES[kind].from_pretrained(**_named_student(recipe), use_safetensors=True)
        return named
    set_seed(seed)
    return new_model(config, kind)


def _vocabulary(teacher_config: PreTrainedConfig | None, tokenizer: Any | None) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if teacher_config is not None:
        settings["vocab_size"] = teacher_config.get_text_config().vocab_size
    elif tokenizer is not None:
        settings["vocab_size"] = len(tokenizer)
    names = ("pad_token_id", "bos_token_id", "eos_token_id") if tokenizer is not None else ()
    special = {name: getattr(tokenizer, name) for name in names}
    return settings | {name: value for name, value in special.items() if value is not None}
