"""Adapters of peft on a model: put on, taken off for a while, counted and described. peft is imported where needed."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from enum import Enum
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import is_peft_available, logging

from hf_dwt.unsharded import num_entries

logger = logging.get_logger(__name__)


def require_peft(what: str) -> None:
    """Check that peft is there.

    Args:
        what: Needs it.

    Raises:
        ImportError: If it is not.
    """
    if not is_peft_available():
        raise ImportError(f"{what} needs peft, which is not installed: pip install 'hf_dwt[peft]'.")


def is_adapted(model: Any) -> bool:
    """Tell whether a model is wrapped by peft."""
    if not is_peft_available():
        return False
    from peft import PeftModel

    return isinstance(model, PeftModel)


def with_adapter(model: nn.Module, peft_config: Any, seed: int) -> nn.Module:
    """Put an untrained adapter on a model, which is frozen and changed in place.

    Args:
        model: The base.
        peft_config: Of peft; it is not changed. The commit of a base from the Hub is noted in the adapter's copy.
        seed: Of the adapter's weights, whatever the state of the global generator.

    Raises:
        ImportError: If peft is missing.
        TypeError: If `peft_config` is no configuration of peft.
        ValueError: If the model has an adapter already.
    """
    require_peft("`peft_config`")
    from peft import PeftConfig, get_peft_model
    from peft.tuners.tuners_utils import BaseTunerLayer

    if not isinstance(peft_config, PeftConfig):
        raise TypeError(
            f"`peft_config` must be a configuration of peft, such as `LoraConfig()`, got {type(peft_config).__name__}."
        )
    if is_adapted(model) or any(isinstance(module, BaseTunerLayer) for module in model.modules()):
        raise ValueError("`model` has an adapter already: leave out `peft_config`, or pass the base.")
    if not _name_of(model):
        logger.warning(
            "The base of the adapter is in memory only, and is not saved with the adapter: `save_pretrained` it, and "
            "load it from there, so that the adapter knows its base."
        )
    config = deepcopy(peft_config)
    if config.revision is None and isinstance(model, PreTrainedModel):
        config.revision = vars(model.config).get("_commit_hash")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapted: nn.Module = get_peft_model(model, config)
    return adapted


@contextmanager
def adapter_off(model: Any) -> Iterator[None]:
    """Let a model answer as its base does, in evaluation mode; then every mode and flag is as it was.

    Args:
        model: Wrapped by peft.
    """
    in_training = [module for module in model.modules() if module.training]
    # Switching adapters on makes all of their weights trainable.
    trainable = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    for module in in_training:
        module.training = False
    try:
        with model.disable_adapter():
            yield
    finally:
        for module in in_training:
            module.training = True
        for parameter, flag in trainable:
            if parameter.requires_grad != flag:
                parameter.requires_grad_(flag)


def base_parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The base's own parameters, under the names that they have in the wrapper.

    Args:
        model: Wrapped by peft.
    """
    own = _adapter_names(model)
    return [(name, each) for name, each in model.named_parameters() if name not in own]


def trained_of_base(model: nn.Module) -> list[str]:
    """Names of the base's own parameters that are trained beside the adapter, as biases may be.

    Args:
        model: Wrapped by peft.
    """
    return [name for name, each in base_parameters(model) if each.requires_grad]


def num_adapter_parameters(model: nn.Module) -> int:
    """Count the parameters of the adapter that is in use, copies of modules that it keeps in place of others included.

    Other adapters that the model holds are not counted.

    Args:
        model: Wrapped by peft.
    """
    adapter_of, in_use = _adapter_names(model), cast(Any, model).active_adapters
    return num_entries(each for name, each in model.named_parameters() if adapter_of.get(name) in in_use)


def num_base_parameters(model: nn.Module) -> int:
    """Count the parameters of the base.

    Args:
        model: Wrapped by peft.
    """
    return num_entries(parameter for _, parameter in base_parameters(model))


def describe(model: Any) -> dict[str, Any] | None:
    """What a record says of a model's adapter, None without one."""
    if not is_adapted(model):
        return None
    config = model.peft_config[model.active_adapter]
    return {
        "type": config.peft_type.value,
        "num_parameters": num_adapter_parameters(model),
        "base": _name_of(model.get_base_model()) or None,
        "settings": _as_json(config.to_dict()),
    }


@contextmanager
def without_card_of_peft(model: Any, folder: str | Path) -> Iterator[None]:
    """Keep out of a folder the card that peft writes with an adapter: it is a form to be filled in.

    Args:
        model: Is saved meanwhile.
        folder: Into this one.
    """
    card = Path(folder) / "README.md"
    before = card.read_bytes() if card.is_file() else None
    yield
    if is_adapted(model) and card.is_file():
        if before is None:
            card.unlink()
        else:
            card.write_bytes(before)


def _adapter_names(model: nn.Module) -> dict[str, str]:
    """Parameters of modules that peft has put in, to the name of the adapter that each belongs to."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import AuxiliaryTrainingWrapper

    found = {}
    for place, module in model.named_modules():
        if isinstance(module, BaseTunerLayer):
            kept = set(module.adapter_layer_names)
        elif isinstance(module, AuxiliaryTrainingWrapper):
            kept = {"modules_to_save"}
        else:
            continue
        for name, _ in module.named_parameters():
            part, _, rest = name.partition(".")
            if part in kept:
                found[f"{place}.{name}"] = rest.split(".")[0]
    # Prompts are no layers of the base, but beside it.
    prompts = [name for name, _ in model.named_parameters() if name.startswith("prompt_encoder.")]
    return found | {name: name.split(".")[1] for name in prompts}


def _name_of(model: nn.Module) -> str:
    return model.name_or_path if isinstance(model, PreTrainedModel) else ""


def _as_json(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {str(name): _as_json(each) for name, each in value.items()}
    if isinstance(value, set):
        return sorted(map(_as_json, value))
    if isinstance(value, list | tuple):
        return [_as_json(each) for each in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
