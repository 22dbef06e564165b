"""Lets the ranks of the tests take the way of GPUs on the CPU; Python reads this where the folder is on its path.

`RANKS_ENGINE` tells what is to be let through: accelerate runs FSDP and DeepSpeed as they run on GPUs only where it
finds GPUs, and DeepSpeed compiles a transport of its own for the CPU, which takes minutes.
"""

import os

if "LOCAL_RANK" in os.environ and os.environ.get("RANKS_ENGINE") in ("fsdp", "deepspeed"):
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType

    os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    PartialState._prepare_backend = lambda *_, **__: ("gloo", DistributedType.MULTI_GPU)
    if os.environ["RANKS_ENGINE"] == "deepspeed":
        import deepspeed.ops

        # Of all that might be compiled only the transport is looked up here.
        vars(deepspeed.ops)["__compatible_ops__"] = {}
