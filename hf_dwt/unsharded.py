"""Models as they are when no engine divides them among the ranks: made or loaded whole, and counted."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn
from transformers.integrations import deepspeed as integration

_FSDP_FIRST_RANK_ONLY = "FSDP_CPU_RAM_EFFICIENT_LOADING"


@contextmanager
def unsharded() -> Iterator[None]:
    """Make and load models whole in every process.

    As long as training arguments with a ZeRO-3 configuration are alive, transformers divides each model among the
    ranks when it is made or loaded: its parameters are empty in between. With FSDP, it may read the weights on a
    machine's first rank only. Neither happens inside of this.
    """
    reference = integration._hf_deepspeed_config_weak_ref
    configuration = None if reference is None else reference()
    first_rank_only = os.environ.get(_FSDP_FIRST_RANK_ONLY)
    integration.unset_hf_deepspeed_config()
    if first_rank_only is not None:
        os.environ[_FSDP_FIRST_RANK_ONLY] = "false"
    try:
        yield
    finally:
        if configuration is not None:
            integration.set_hf_deepspeed_config(configuration)
        if first_rank_only is not None:
            os.environ[_FSDP_FIRST_RANK_ONLY] = first_rank_only


def num_entries(parameters: Iterable[nn.Parameter]) -> int:
    """Number of entries of parameters, those included that DeepSpeed has left empty on this rank."""
    return sum(vars(parameter).get("ds_numel", parameter.numel()) for parameter in parameters)
