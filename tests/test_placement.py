"""Where a teacher is kept on one process; `tests/engines` has the rest."""

from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.utils import DistributedType
from tiny_runs import KINDS, largest_difference, make_student, make_teacher
from trainer_runs import make_trainer, trained_weights

from hf_dwt import DWTTrainer
from hf_dwt.arguments import TeacherPlacement
from hf_dwt.placement import frozen_config, make_whole, place, require_placement
from hf_dwt.unsharded import num_entries


def accelerator(kind: DistributedType = DistributedType.NO, stage: int | None = None, device: str = "cpu") -> Any:
    """The part of an accelerator that placing looks at."""
    plugin = None if stage is None else SimpleNamespace(zero_stage=stage)
    return SimpleNamespace(
        state=SimpleNamespace(deepspeed_plugin=plugin),
        distributed_type=kind,
        is_fsdp2=False,
        num_processes=1,
        device=torch.device(device),
    )


# Refusals


@pytest.mark.parametrize(
    ("kind", "stage", "found"),
    [
        (DistributedType.NO, None, "a single process"),
        (DistributedType.MULTI_CPU, None, "plain DDP"),
        (DistributedType.FSDP, None, "FSDP version 1"),
        (DistributedType.DEEPSPEED, 2, "ZeRO-2"),
    ],
)
def test_a_teacher_is_not_divided_where_the_student_is_not(
    kind: DistributedType, stage: int | None, found: str
) -> None:
    message = f"takes ZeRO-3 or FSDP2; this run has {found}. Use 'replicated', or 'offload'"
    with pytest.raises(ValueError, match=message):
        require_placement("sharded", accelerator(kind, stage))
    for other in ("replicated", "offload"):
        require_placement(other, accelerator(kind, stage))
    require_placement("sharded", accelerator(DistributedType.DEEPSPEED, 3))


def test_the_trainer_refuses_before_it_loads_the_teacher(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="this run has a single process"):
        make_trainer(tmp_path, teacher="nobody/has-this", teacher_placement="sharded")


def test_a_place_of_another_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`teacher_placement` must be 'replicated', 'sharded' or 'offload', got 'cpu'"):
        make_trainer(tmp_path, teacher_placement="cpu")


# Offloading


@pytest.mark.parametrize("kind", KINDS)
def test_an_offloaded_teacher_teaches_the_same(kind: str, tmp_path: Path) -> None:
    settings = {"max_steps": 3, "soft_loss_weight": 2}
    expected = trained_weights(tmp_path, kind, **settings)
    offloaded = trained_weights(tmp_path, kind, teacher_placement="offload", **settings)
    assert largest_difference(offloaded, expected) == 0


def test_an_offloaded_teacher_is_on_the_device_during_a_forward_pass_only() -> None:
    teacher = make_teacher()
    before = {name: (each.data_ptr(), each.clone()) for name, each in teacher.named_parameters()}
    # A device that holds nothing, and stands for a GPU.
    there = place(teacher, "offload", accelerator(device="meta"))
    assert not there.is_sharded
    for _ in range(2):
        with there.at_hand():
            assert {each.device.type for each in teacher.parameters()} == {"meta"}
        for name, each in teacher.named_parameters():
            address, value = before[name]
            assert each.data_ptr() == address
            assert torch.equal(each, value)


@pytest.mark.parametrize("placement", ["replicated", "offload"])
def test_a_teacher_that_another_trainer_has_let_go_is_at_hand_all_the_same(placement: TeacherPlacement) -> None:
    teacher = make_teacher()
    there = place(teacher, placement, accelerator(device="meta"))
    # What is left on the CPU, as by the other's `release`: nothing can be copied out of the meta device.
    teacher.to_empty(device="cpu")
    with there.at_hand():
        assert {each.device.type for each in (*teacher.parameters(), *teacher.buffers())} == {"meta"}


def test_an_offloaded_teacher_is_back_in_cpu_memory_after_an_error() -> None:
    teacher = make_teacher()
    there = place(teacher, "offload", accelerator(device="meta"))
    with pytest.raises(RuntimeError, match="out of memory"), there.at_hand():
        raise RuntimeError("out of memory")
    assert {each.device.type for each in teacher.parameters()} == {"cpu"}


def test_the_trainer_takes_an_offloaded_teacher_to_the_device_for_each_of_its_forward_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(tmp_path, teacher_placement="offload", max_steps=2)
    entered: list[bool] = []
    there = trainer._teaching._place
    enter = there.at_hand

    def counted() -> Any:
        entered.append(True)
        return enter()

    object.__setattr__(there, "at_hand", counted)
    trainer.train()
    # Two steps, and the batches that the teacher is judged by.
    assert len(entered) >= 3


# What is whole


def test_a_whole_model_stays_as_it_is() -> None:
    teacher = make_teacher()
    before = dict(teacher.named_parameters())
    make_whole(teacher)
    assert all(before[name] is each for name, each in teacher.named_parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_shared_parameters_are_counted_once(kind: str) -> None:
    model = make_student(kind)
    assert num_entries(model.parameters()) == model.num_parameters()


def test_a_teacher_that_was_let_go_is_placed_again(tmp_path: Path) -> None:
    settings = {"max_steps": 4, "weighting": "step", "final_soft_loss_weight": 0.0, "weighting_kwargs": {"at": 0.5}}
    trainer: DWTTrainer = make_trainer(tmp_path, teacher_placement="offload", **settings)
    trainer.train()
    assert trainer.teacher is None
    trainer.train()
    assert trainer.state.global_step == 4


# DeepSpeed's configuration


def test_the_configuration_of_a_divided_teacher_has_nothing_of_training() -> None:
    zero = {"stage": 3, "reduce_bucket_size": "auto", "offload_optimizer": {"device": "cpu"}, "overlap_comm": True}
    student = {
        "zero_optimization": zero | {"offload_param": {"device": "cpu"}, "stage3_max_live_parameters": 7},
        "optimizer": {"type": "AdamW", "params": {"lr": "auto"}},
        "scheduler": {"type": "WarmupLR"},
        "bf16": {"enabled": True},
        "gradient_clipping": 1.0,
        "train_batch_size": 16,
        "train_micro_batch_size_per_gpu": 4,
        "gradient_accumulation_steps": 2,
        "steps_per_print": "auto",
    }
    before = deepcopy(student)
    frozen = {
        "zero_optimization": {"stage": 3, "overlap_comm": True, "stage3_max_live_parameters": 7},
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
    }
    assert frozen_config(student, torch.float32) == frozen
    assert frozen_config(student, torch.bfloat16) == frozen | {"bf16": {"enabled": True}}
    assert frozen_config(student, torch.float16) == frozen | {"fp16": {"enabled": True}}
    assert student == before
