"""Train a larger language model from the smaller one you already have, with the Hugging Face `Trainer`.

Distillation from a weak teacher (Lee et al., Findings of ACL 2023, https://arxiv.org/abs/2305.18239). Names are
imported when they are first used: `import hf_dwt` loads neither torch nor transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hf_dwt._version import __version__

if TYPE_CHECKING:
    from hf_dwt.arguments import DWTTrainingArguments
    from hf_dwt.losses import hard_loss, soft_loss
    from hf_dwt.teacher import Teacher, load_teacher
    from hf_dwt.trainer import DWTTrainer
    from hf_dwt.weighting import Signals, Weights, register_policy

__all__ = [
    "DWTTrainer",
    "DWTTrainingArguments",
    "Signals",
    "Teacher",
    "Weights",
    "__version__",
    "hard_loss",
    "load_teacher",
    "register_policy",
    "soft_loss",
]

_MODULES = {
    "DWTTrainer": "trainer",
    "DWTTrainingArguments": "arguments",
    "Signals": "weighting",
    "Teacher": "teacher",
    "Weights": "weighting",
    "hard_loss": "losses",
    "load_teacher": "teacher",
    "register_policy": "weighting",
    "soft_loss": "losses",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
