"""A plan of growth: all that is needed to grow the same student from the same teacher again, bit for bit."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from transformers import CONFIG_MAPPING, PretrainedConfig, PreTrainedModel

from hf_dwt._version import __version__
from hf_dwt.remapping.depth import Layer
from hf_dwt.remapping.sizes import FIELDS, field_of, fields_of, read_sizes

FILE_NAME = "growth_plan.json"


@dataclass(frozen=True)
class GrowthPlan:
    """How a student is grown from its teacher.

    Attributes:
        architecture: Class of both models.
        teacher: Where the teacher came from.
        teacher_config: Its configuration, as a dictionary.
        student_config: The student's.
        width_method: How axes grow, see `width.WIDTH_METHODS`.
        depth_method: How the stack of layers grows, see `depth.DEPTH_METHODS`.
        layers: Where each layer of the student comes from.
        choices: Answers to what shapes leave open, found on a tiny model of the class.
        noise: Standard deviation of the noise that sets copies apart, relative to the weight's own.
        seed: Of everything random.
        inferred: Sizes that were not given, by field.
        version: Of hf_dwt.
        outcome: What came of it, in a line; no part of the plan proper, as what follows.
        num_trained_steps: Optimiser steps that the student beside it had been trained for when it was saved.

    Example:
        >>> from hf_dwt import plan_growth
        >>> from transformers import BertConfig, BertForMaskedLM
        >>> small = BertForMaskedLM(BertConfig(vocab_size=99, hidden_size=24, num_hidden_layers=1))
        >>> print(plan_growth(small, hidden_size=48).width_method)
        exact
    """

    architecture: str
    teacher: str
    teacher_config: Mapping[str, Any]
    student_config: Mapping[str, Any]
    width_method: str
    depth_method: str
    layers: tuple[Layer, ...]
    choices: Mapping[str, str]
    noise: float
    seed: int
    inferred: Mapping[str, int] = field(default_factory=dict)
    version: str = __version__
    outcome: str = field(default="", compare=False)
    num_trained_steps: int = field(default=0, compare=False)

    def configs(self) -> tuple[PretrainedConfig, PretrainedConfig]:
        """The configurations of teacher and student."""
        teacher, student = self.teacher_config, self.student_config
        config_class = CONFIG_MAPPING[teacher["model_type"]]
        return config_class.from_dict(dict(teacher)), config_class.from_dict(dict(student))

    def __str__(self) -> str:
        return "\n".join([f"{self.architecture}, grown from {self.teacher}", *self._size_rows(), *self._method_rows()])

    def sizes(self) -> list[dict[str, Any]]:
        """Rows of `field`, the sizes of `teacher` and `student`, and `note`: 'kept', 'inferred' or ''."""
        old_config, new_config = self.configs()
        old, new = read_sizes(old_config), read_sizes(new_config)
        rows = []
        for axis in FIELDS:
            if fields_of(old_config, axis) and axis in old:
                name = field_of(old_config, axis)
                origin = "inferred" if name in self.inferred else ""
                note = origin if old[axis] != new[axis] else "kept"
                rows.append({"field": name, "teacher": old[axis], "student": new[axis], "note": note})
        return rows

    def _size_rows(self) -> list[str]:
        told = [(row["field"], f"{row['teacher']:,}", f"{row['student']:,}", row["note"]) for row in self.sizes()]
        rows = [("size", "teacher", "student", ""), *told]
        widest = max(len(row[0]) for row in rows)
        return [f"  {name:<{widest}} {before:>9} {after:>9}  {note}".rstrip() for name, before, after, note in rows]

    def _method_rows(self) -> list[str]:
        layers = " ".join(f"{each.source}{'=' if each.identity else ''}" for each in self.layers)
        rows = [f"  width: {self.width_method}; depth: {self.depth_method}; noise {self.noise:g}; seed {self.seed}"]
        rows.append(f"  layers come from: {layers}" + (" (= passes on what it is given)" if "=" in layers else ""))
        rows.extend(f"  {kind}: {answer}" for kind, answer in self.choices.items())
        return rows

    def save(self, folder: str | Path) -> Path:
        """Write `growth_plan.json` into a folder and return its path."""
        path = Path(folder) / FILE_NAME
        path.write_text(json.dumps(asdict(self), indent=2, sort_keys=True) + "\n")
        return path

    @classmethod
    def load(cls, folder: str | Path) -> "GrowthPlan":
        """Read the plan in a student's folder.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If it is no plan of growth.
        """
        path = Path(folder) / FILE_NAME if Path(folder).is_dir() else Path(folder)
        if not path.is_file():
            raise FileNotFoundError(f"There is no plan of growth at {path}.")
        try:
            values = json.loads(path.read_text())
            layers = tuple(Layer(**each) for each in values.pop("layers"))
            return cls(layers=layers, **values)
        except (TypeError, KeyError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is no plan of growth: {error}") from error


_PLANS: "WeakKeyDictionary[PreTrainedModel, GrowthPlan]" = WeakKeyDictionary()


def remember_plan(student: PreTrainedModel, plan: GrowthPlan) -> None:
    """Note how a student was grown, for as long as it lives."""
    _PLANS[student] = plan


def save_plan_of(model: Any, folder: str | Path, num_trained_steps: int = 0) -> None:
    """Write the plan by which a model was grown beside it, if it was; and for how many steps it has been trained."""
    plan = plan_of(model)
    if plan is not None:
        replace(plan, num_trained_steps=num_trained_steps).save(folder)


def plan_of(model: Any) -> GrowthPlan | None:
    """The plan by which a model was grown, in this process or before it was loaded from a folder; else None.

    Weights of a folder that have been trained since are no longer what was grown: for this run they are its start.
    """
    if not isinstance(model, PreTrainedModel):
        return None
    if model in _PLANS or not (model.name_or_path and (Path(model.name_or_path) / FILE_NAME).is_file()):
        return _PLANS.get(model)
    plan = GrowthPlan.load(model.name_or_path)
    return None if plan.num_trained_steps else plan
