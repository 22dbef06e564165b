"""From a recipe to its student, by configuration or with weights."""

import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import torch
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    PreTrainedConfig,
    PreTrainedModel,
    set_seed,
)

from hf_dwt.cli.options import config_fields
from hf_dwt.cli.recipe import Recipe, reading
from hf_dwt.costs import on_meta
from hf_dwt.factory import from_weak_teacher, plan_growth
from hf_dwt.hub.access import resolve_commit
from hf_dwt.language_models import AUTO_CLASSES, Kind, architecture_kind, longest_sequence
from hf_dwt.model_files import looks_local, refuse_revision, without_conversion_service
from hf_dwt.remapping.depth import interleave
from hf_dwt.remapping.sizes import fields_of, grown_config, of_layers, per_layer, stretch_layer_lists
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
        check_keys("`student` with a `name`", chosen, ["name", "revision", "dtype"])
        return AutoConfig.from_pretrained(**_named_student(recipe))
    model_type = chosen.pop("model_type", None)
    if model_type is None and teacher_config is None:
        raise RecipeError("`student` has neither `model_type` nor `name`, and there is no teacher to take one from.")
    settings: dict[str, Any] = _vocabulary(teacher_config, tokenizer)
    if model_type is None:
        assert teacher_config is not None
        model_type = teacher_config.model_type
        own = _own_fields(chosen, model_type)
        settings = _fields_of_teacher(teacher_config, own) | settings | own
    else:
        settings |= _own_fields(chosen, model_type)
    with reading("student"):
        return CONFIG_MAPPING[model_type](**settings)


def _own_fields(chosen: Mapping[str, Any], model_type: str) -> dict[str, Any]:
    """What the recipe says, in the names of the architecture."""
    names, known = CONFIG_MAPPING[model_type].attribute_map, config_fields(model_type)
    for key in chosen:
        if key not in known:
            raise RecipeError(f"`student` has no key `{key}`. {suggestion(key, known)}")
    return {names.get(key, key): value for key, value in chosen.items()}


def _fields_of_teacher(teacher_config: PreTrainedConfig, own: Mapping[str, Any]) -> dict[str, Any]:
    """What the teacher's configuration says of a student with these fields of its own; its lists follow its depth."""
    # Name and precision are of weights that the student does not have.
    fields = {k: v for k, v in teacher_config.to_dict().items() if k not in ("_name_or_path", "dtype")}
    depth = next((name for name in fields_of(teacher_config, "layers") if name in own), None)
    if depth is None or not isinstance(own[depth], int) or own[depth] == fields[depth]:
        return fields
    sources = interleave(fields[depth], own[depth])
    lists = [name for name, value in fields.items() if isinstance(value, list) and per_layer(teacher_config, name)]
    return fields | {name: of_layers(teacher_config, name, sources) for name in lists}


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
        config = grown_config(teacher_config, None, chosen)[0]
    # As long as growing makes them, whatever it takes for each layer.
    stretch_layer_lists(teacher_config, config)
    return config


def check_student(recipe: Recipe, kind: Kind, teacher: PreTrainedModel | None) -> None:
    """Refuse what would only show when the text has been read: a student that cannot be made, too long examples.

    Args:
        recipe: Of the student.
        kind: Of both models.
        teacher: The recipe's, its weights are not looked at; None if there is none.

    Raises:
        ValueError: If the student cannot be made or grown, or a model cannot read examples as long as the recipe's.
    """
    config = student_config(recipe, None if teacher is None else teacher.config)
    if recipe.growth is not None and teacher is not None:
        plan_growth(teacher, config, **asdict(recipe.growth))
    models = {"student": on_meta(config, kind)} | ({} if teacher is None else {"teacher": teacher})
    for role, model in models.items():
        longest = longest_sequence(model)
        if longest is not None and longest < recipe.data.length:
            raise RecipeError(
                f"`data.length` is {recipe.data.length}, but the {role} reads at most {longest} tokens "
                "(`max_position_embeddings`)."
            )


def new_model(config: PreTrainedConfig, kind: Kind, **settings: Any) -> PreTrainedModel:
    """A language model with random weights."""
    model: PreTrainedModel = AUTO_CLASSES[kind].from_config(config, **settings)
    return model


def build_student(
    recipe: Recipe, config: PreTrainedConfig, kind: Kind, seed: int, teacher: Teacher | None = None
) -> PreTrainedModel:
    """The student: random weights that depend on the seed alone, grown ones, or those of the model that is named.

    They are float32, in which an optimiser's small steps count, unless the recipe asks for another `dtype`.
    """
    dtype = getattr(torch, recipe.student.get("dtype") or "float32")
    if recipe.growth is not None:
        assert teacher is not None
        student: PreTrainedModel = from_weak_teacher(teacher, config, seed=seed, dtype=dtype, **asdict(recipe.growth))
        return student
    if "name" in recipe.student:
        with without_conversion_service():
            named: PreTrainedModel = AUTO_CLASSES[kind].from_pretrained(
                **_named_student(recipe), dtype=dtype, use_safetensors=True
            )
        return named
    set_seed(seed)
    return new_model(config, kind, dtype=dtype)


def _vocabulary(teacher_config: PreTrainedConfig | None, tokenizer: Any | None) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if teacher_config is not None:
        settings["vocab_size"] = teacher_config.get_text_config().vocab_size
    elif tokenizer is not None:
        settings["vocab_size"] = len(tokenizer)
    names = ("pad_token_id", "bos_token_id", "eos_token_id") if tokenizer is not None else ()
    special = {name: getattr(tokenizer, name) for name in names}
    return settings | {name: value for name, value in special.items() if value is not None}
