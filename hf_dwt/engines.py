"""The part of the trainer that fits its student to the engines: DeepSpeed and FSDP2."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from transformers.conversion_mapping import get_checkpoint_conversion_mapping

from hf_dwt.checkpoints import require_same_world_size
from hf_dwt.feeding import FeedingTrainer
from hf_dwt.placement import layers_to_divide
from hf_dwt.positions import unwrapped


class EngineTrainer(FeedingTrainer):
    """`Trainer` whose language models can be divided by FSDP2, and are saved under their own names after ZeRO-3."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._second_names: dict[str, str] = {}
        super().__init__(*args, **kwargs)

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Train; a checkpoint of DeepSpeed that was written by another number of ranks is refused.

        Raises:
            ValueError: If it was, with the command that makes it fit.
        """
        plugin = self.accelerator.state.deepspeed_plugin
        if isinstance(resume_from_checkpoint, str) and plugin is not None:
            loads_universal = plugin.deepspeed_config.get("checkpoint", {}).get("load_universal", False)
            require_same_world_size(resume_from_checkpoint, self.accelerator.num_processes, loads_universal)
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        from torch.distributed.fsdp import FSDPModule

        student = unwrapped(self.model)
        if self.kind is None or not self.accelerator.is_fsdp2 or isinstance(student, FSDPModule):
            return super()._prepare_for_training(*args, **kwargs)
        self._second_names |= drop_second_names(student)
        with _ready_for_fsdp2(student, self._second_names):
            return super()._prepare_for_training(*args, **kwargs)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if self.kind is not None:
            student = unwrapped(self.model)
            forget_legacy_names(student)
            if state_dict is not None:
                kept = {second: first for second, first in self._second_names.items() if first in state_dict}
                state_dict = {**state_dict, **{second: state_dict[first] for second, first in kept.items()}}
                # FSDP2 puts a parameter together once for each of its names; as one tensor it is saved once.
                tied = student.all_tied_weights_keys.items()
                known = {target: source for target, source in tied if {target, source} <= state_dict.keys()}
                state_dict |= {target: state_dict[source] for target, source in known.items()}
        super()._save(output_dir, state_dict)


def drop_second_names(model: Any) -> dict[str, str]:
    """Take a parameter of the last layer away from other modules that hold it too, as BERT's head holds its bias.

    FSDP2 divides the last layer by itself, and refuses a parameter that another part holds as well. Nothing reads it
    there.

    Args:
        model: Not wrapped yet; if it is, there is nothing left to be done.

    Returns:
        The names that are gone, and those under which their parameters still are.
    """
    last = model.get_output_embeddings()
    bias = None if last is None else dict(last.named_parameters(recurse=False)).get("bias")
    if bias is None:
        return {}
    names = {module: name for name, module in model.named_modules()}
    dropped = {}
    for module in model.modules():
        for own, parameter in list(module.named_parameters(recurse=False)):
            if parameter is bias and module is not last:
                module.register_parameter(own, None)
                dropped[f"{names[module]}.{own}"] = f"{names[last]}.bias"
    return dropped


@contextmanager
def _ready_for_fsdp2(model: Any, second_names: Mapping[str, str]) -> Iterator[None]:
    """Let a model name only layers that can be divided, and tie no parameter to one that is gone."""
    tied, before = model._tied_weights_keys or {}, dict(vars(model))
    own = {
        "_no_split_modules": sorted({type(layer).__name__ for layer in layers_to_divide(model)}),
        "_tied_weights_keys": {target: source for target, source in tied.items() if source not in second_names},
    }
    vars(model).update(own)
    try:
        yield
    finally:
        for name in own:
            if name in before:
                vars(model)[name] = before[name]
            else:
                del vars(model)[name]


def forget_legacy_names(model: Any) -> None:
    """Save a model that was loaded under ZeRO-3 under its own names, not under those of ten years ago.

    There transformers keeps every renaming that it knows of, used or not, to be undone when the model is saved:
    `LayerNorm.weight` would become `LayerNorm.gamma`.
    """
    kept = vars(model).get("_weight_conversions")
    if kept:
        legacy = [each.source_patterns for each in get_checkpoint_conversion_mapping("legacy")]
        model._weight_conversions = [each for each in kept if each.source_patterns not in legacy]
