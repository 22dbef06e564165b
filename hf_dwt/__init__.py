"""Train a larger language model from the smaller one you already have, with the Hugging Face `Trainer`.

Distillation from a weak teacher (Lee et al., Findings of ACL 2023, https://arxiv.org/abs/2305.18239). Names are
imported when they are first used: `import hf_dwt` loads neither torch nor transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hf_dwt._version import __version__

if TYPE_CHECKING:
    from hf_dwt.arguments import DWTTrainingArguments
    from hf_dwt.assess import TeacherReport, assess_teacher
    from hf_dwt.cache.reading import TeacherCache
    from hf_dwt.cache.writing import cache_teacher
    from hf_dwt.factory import from_weak_teacher, plan_growth
    from hf_dwt.finetuning.runs import evaluate_suite
    from hf_dwt.hub.push import PushFailed
    from hf_dwt.losses import hard_loss, soft_loss
    from hf_dwt.remapping.depth import register_depth_method
    from hf_dwt.remapping.plan import GrowthPlan
    from hf_dwt.remapping.report import RemappingReport
    from hf_dwt.remapping.width import register_width_method
    from hf_dwt.signals import Signals, Weights
    from hf_dwt.teacher import Teacher, load_teacher
    from hf_dwt.trainer import DWTTrainer
    from hf_dwt.weighting import register_policy

__all__ = [
    "DWTTrainer",
    "DWTTrainingArguments",
    "GrowthPlan",
    "PushFailed",
    "RemappingReport",
    "Signals",
    "Teacher",
    "TeacherCache",
    "TeacherReport",
    "Weights",
    "__version__",
    "assess_teacher",
    "cache_teacher",
    "evaluate_suite",
    "from_weak_teacher",
    "hard_loss",
    "load_teacher",
    "plan_growth",
    "register_depth_method",
    "register_policy",
    "register_width_method",
    "soft_loss",
]

_MODULES = {
    "DWTTrainer": "trainer",
    "DWTTrainingArguments": "arguments",
    "GrowthPlan": "remapping.plan",
    "PushFailed": "hub.push",
    "RemappingReport": "remapping.report",
    "Signals": "signals",
    "Teacher": "teacher",
    "TeacherCache": "cache.reading",
    "TeacherReport": "assess",
    "Weights": "signals",
    "assess_teacher": "assess",
    "cache_teacher": "cache.writing",
    "evaluate_suite": "finetuning.runs",
    "from_weak_teacher": "factory",
    "hard_loss": "losses",
    "load_teacher": "teacher",
    "plan_growth": "factory",
    "register_depth_method": "remapping.depth",
    "register_policy": "weighting",
    "register_width_method": "remapping.width",
    "soft_loss": "losses",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
