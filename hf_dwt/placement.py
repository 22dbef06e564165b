"""Where a frozen teacher is kept: whole beside each rank's student, divided as the student is, or in CPU memory."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn

from hf_dwt.arguments import TeacherPlacement
from hf_dwt.positions import unwrapped

# What an engine that never steps has no use for, or that describes another model than the student.
_OF_TRAINING = ("optimizer", "scheduler", "gradient_clipping", "train_batch_size", "bf16", "fp16", "checkpoint")
_OF_TRAINING_IN_ZERO = ("offload_optimizer", "offload_param")
_PRECISIONS = {torch.bfloat16: "bf16", torch.float16: "fp16"}


@dataclass(frozen=True)
class Place:
    """A frozen model that has been put somewhere.

    Attributes:
        run: What is called for a forward pass: the model, or the engine around it. Where it is divided, every rank
            must call it as often as the others do.
        is_sharded: Whether its parameters are divided among the ranks, and there for whole forward passes only.
        at_hand: Context in which the parameters are where the batches are.
        release: Frees its memory on the accelerator. It can be placed again.
    """

    run: nn.Module
    is_sharded: bool
    at_hand: Callable[[], AbstractContextManager[None]]
    release: Callable[[], None]


def is_zero3(accelerator: Accelerator) -> bool:
    """Tell whether DeepSpeed divides the student's parameters among the ranks."""
    plugin = accelerator.state.deepspeed_plugin
    return plugin is not None and plugin.zero_stage == 3


def needs_whole_heads(accelerator: Accelerator) -> bool:
    """Tell whether the student's head has to be run in one part.

    Where parameters are divided they are whole for whole forward passes only. Where gradients are, from ZeRO-1 on,
    DeepSpeed reduces them in the order in which they come, which has to be the same on all ranks; the number of parts,
    and with it that order, is each rank's own.
    """
    plugin = accelerator.state.deepspeed_plugin
    return accelerator.distributed_type == DistributedType.FSDP or (plugin is not None and plugin.zero_stage > 0)


def require_placement(placement: TeacherPlacement, accelerator: Accelerator) -> None:
    """Refuse to divide a teacher where the student is not divided.

    Raises:
        ValueError: Naming the engine of the run.
    """
    if placement != "sharded" or is_zero3(accelerator) or accelerator.is_fsdp2:
        return
    plugin, kind = accelerator.state.deepspeed_plugin, accelerator.distributed_type
    found = {DistributedType.NO: "a single process", DistributedType.FSDP: "FSDP version 1"}.get(kind, "plain DDP")
    found = found if plugin is None else f"ZeRO-{plugin.zero_stage}"
    raise ValueError(
        "`teacher_placement='sharded'` divides the teacher as the student is divided, which takes ZeRO-3 or FSDP2; "
        f"this run has {found}. Use 'replicated', or 'offload', which keeps the teacher in CPU memory between forwards."
    )


def place(model: nn.Module, placement: TeacherPlacement, accelerator: Accelerator) -> Place:
    """Put a frozen model where it can be asked. All ranks take the first one's weights, as DDP does with the student.

    Args:
        model: Whole, or divided by loading it under ZeRO-3.
        placement: See `DistillationArguments`.
        accelerator: Of the student.
    """
    require_placement(placement, accelerator)
    if placement == "sharded":
        return _under_zero3(model, accelerator) if is_zero3(accelerator) else _under_fsdp2(model, accelerator)
    make_whole(model)
    _take_from_first_rank(model, accelerator)
    return _offloaded(model, accelerator.device) if placement == "offload" else _replicated(model, accelerator.device)


def _replicated(model: nn.Module, device: torch.device) -> Place:
    model.to(device)

    @contextmanager
    def at_hand() -> Iterator[None]:
        # Another trainer may have had the same model, and let it go.
        if next(model.parameters()).device.type != device.type:
            model.to(device)
        yield

    return Place(model, False, at_hand, lambda: _to_cpu(model))


def _offloaded(model: nn.Module, device: torch.device) -> Place:
    """Parameters stay in CPU memory, page-locked for a GPU; each use copies them, and nothing is copied back."""
    _to_cpu(model)
    held = [(module._parameters, name, each) for module in model.modules() for name, each in _own_parameters(module)]
    if device.type == "cuda":
        for parameter in model.parameters():
            parameter.data = parameter.data.pin_memory()
    _buffers_to(model, device)

    @contextmanager
    def at_hand() -> Iterator[None]:
        # As above.
        _buffers_to(model, device)
        copies = {each: nn.Parameter(each.data.to(device, non_blocking=True), False) for _, _, each in held}
        try:
            for parameters, name, each in held:
                parameters[name] = copies[each]
            yield
        finally:
            for parameters, name, each in held:
                parameters[name] = each

    return Place(model, False, at_hand, lambda: _to_cpu(model))


def _buffers_to(model: nn.Module, device: torch.device) -> None:
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = buffer.to(device)


def _own_parameters(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Parameters that a module itself holds, those that others hold too included."""
    return [(name, parameter) for name, parameter in module._parameters.items() if parameter is not None]


def _under_zero3(model: nn.Module, accelerator: Accelerator) -> Place:
    import deepspeed

    if _is_partitioned(model):
        _move_shares(model, accelerator.device)
    else:
        _take_from_first_rank(model, accelerator)
    dtype = next(model.parameters()).dtype
    engine, *_ = deepspeed.initialize(
        model=model, config=frozen_config(accelerator.state.deepspeed_plugin.deepspeed_config, dtype)
    )
    engine.eval()

    def release() -> None:
        engine.destroy()
        _move_shares(model, torch.device("cpu"))
        _to_cpu(model)

    return Place(engine, True, nullcontext, release)


def _move_shares(model: nn.Module, device: torch.device) -> None:
    for parameter in model.parameters():
        share = vars(parameter)["ds_tensor"]
        share.data = share.data.to(device)


def frozen_config(student_config: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """Configuration of a DeepSpeed engine without optimiser, which divides parameters as that of the student does.

    Args:
        student_config: Of the student's engine; left as it is.
        dtype: Of the frozen parameters.
    """
    config = _without_auto(deepcopy(student_config))
    config = {name: value for name, value in config.items() if name not in _OF_TRAINING}
    zero = {name: value for name, value in config["zero_optimization"].items() if name not in _OF_TRAINING_IN_ZERO}
    config |= {"zero_optimization": zero, "train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 1}
    if dtype in _PRECISIONS:
        config[_PRECISIONS[dtype]] = {"enabled": True}
    return config


def _without_auto(config: Any) -> Any:
    if not isinstance(config, dict):
        return config
    return {name: _without_auto(value) for name, value in config.items() if value != "auto"}


def _under_fsdp2(model: nn.Module, accelerator: Accelerator) -> Place:
    from torch.distributed.fsdp import FSDPModule, fully_shard

    if not isinstance(model, FSDPModule):
        make_whole(model)
        _take_from_first_rank(model, accelerator)
        mesh = accelerator.torch_device_mesh
        dims = None if mesh is None else tuple(accelerator.parallelism_config.fsdp_dim_names)
        divide = partial(fully_shard, mesh=None if dims is None else mesh[dims], reshard_after_forward=True)
        for module in layers_to_divide(model):
            divide(module)
        divide(model)
    return Place(model, True, nullcontext, lambda: None)


def layers_to_divide(model: nn.Module) -> list[nn.Module]:
    """Parts that FSDP2 can divide each by itself: what transformers would not split, and shares no parameter with the
    rest, as BERT's embeddings do with its head.
    """
    names = set(unwrapped(model)._no_split_modules or ())
    holders: dict[nn.Parameter, set[nn.Module]] = {}
    for module in model.modules():
        for _, parameter in _own_parameters(module):
            holders.setdefault(parameter, set()).add(module)
    found = [module for module in model.modules() if type(module).__name__ in names]
    return [each for each in found if all(holders[own] <= set(each.modules()) for own in each.parameters())]


# What is divided, made whole


def _is_partitioned(model: nn.Module) -> bool:
    """Whether a model was made or loaded under ZeRO-3, which leaves empty parameters behind."""
    return any("ds_tensor" in vars(parameter) for parameter in model.parameters())


@contextmanager
def whole(parameter: nn.Parameter) -> Iterator[Tensor]:
    """A parameter as it is when it is not divided; where it is, all ranks must ask for it."""
    from torch.distributed.tensor import DTensor

    if isinstance(parameter, DTensor):
        yield parameter.full_tensor()
    elif "ds_tensor" in vars(parameter):
        import deepspeed

        with deepspeed.zero.GatheredParameters([parameter]):
            yield parameter.data
    else:
        yield parameter.data


def make_whole(model: nn.Module) -> None:
    """Undo that a model was divided when it was loaded under ZeRO-3; its parameters become new ones.

    Raises:
        ValueError: If FSDP has divided it.
    """
    from torch.distributed.fsdp import FSDPModule

    if isinstance(model, FSDPModule):
        raise ValueError("The teacher has been divided by FSDP for another trainer: load it again.")
    if not _is_partitioned(model):
        return
    made: dict[nn.Parameter, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in _own_parameters(module):
            if parameter not in made:
                with whole(parameter) as values:
                    made[parameter] = nn.Parameter(values.clone(), requires_grad=parameter.requires_grad)
            module._parameters[name] = made[parameter]


@torch.no_grad()
def _take_from_first_rank(model: nn.Module, accelerator: Accelerator) -> None:
    """Give all ranks the weights of the first; with FSDP it may be the only one that has read any."""
    if accelerator.num_processes == 1:
        return
    made: dict[Tensor, Tensor] = {}
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is None:
                    continue
                if tensor not in made:
                    made[tensor] = _from_first_rank(tensor, accelerator.device)
                held[name] = made[tensor]  # type: ignore[assignment]


def _from_first_rank(tensor: Tensor, device: torch.device) -> Tensor:
    home = torch.device("cpu") if tensor.is_meta else tensor.device
    values = torch.empty_like(tensor, device=device) if tensor.is_meta else tensor.detach().to(device)
    values = values.contiguous()
    torch.distributed.broadcast(values, src=0)
    if not tensor.is_meta:
        tensor.copy_(values)
        return tensor
    return nn.Parameter(values.to(home), tensor.requires_grad) if isinstance(tensor, nn.Parameter) else values.to(home)


def _to_cpu(model: nn.Module) -> None:
    model.to("cpu")
