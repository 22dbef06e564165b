"""The part of the trainer that puts an adapter on its model."""

from typing import Any

from torch import nn
from transformers import PreTrainedModel, TrainingArguments

from hf_dwt.adapters import with_adapter
from hf_dwt.engines import EngineTrainer


class AdaptingTrainer(EngineTrainer):
    """`Trainer` that takes a `peft_config`: it trains an adapter on its model, or on each that `model_init` makes.

    The adapter's first weights are drawn from `args.seed`.
    """

    def __init__(
        self,
        model: PreTrainedModel | nn.Module | None,
        args: TrainingArguments,
        *trainer_args: Any,
        peft_config: Any | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        self._peft_config = peft_config
        if model is not None and peft_config is not None:
            model = with_adapter(model, peft_config, args.seed)
        super().__init__(model, args, *trainer_args, **trainer_kwargs)

    def call_model_init(self, trial: Any = None) -> Any:
        """Make a model, with its adapter."""
        model = super().call_model_init(trial)
        return model if self._peft_config is None else with_adapter(model, self._peft_config, self.args.seed)
