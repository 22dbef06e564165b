"""Teachers and students that come to a trainer in all the ways that there are, before and after the arguments."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from engines import own_shares, settings_of, whole_weights
from equality_cases import NUM_EXAMPLES, SIZES
from rank_cases import uneven_examples, untrained_teacher
from safetensors import safe_open
from tiny_runs import arguments, make_student, tokenizer
from transformers import BertForMaskedLM
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from hf_dwt import DWTTrainer, Teacher, from_weak_teacher, load_teacher

# How a teacher is passed.
WAYS: dict[str, Callable[[Path], Any]] = {
    "model": BertForMaskedLM.from_pretrained,
    "teacher of a model": lambda folder: Teacher(BertForMaskedLM.from_pretrained(folder)),
    "loaded": load_teacher,
    "folder": str,
}


def save_models(folder: Path) -> None:
    """Save the teacher and the student that all cases of a run read; one process does so for all ranks."""
    for name, model in {"teacher": untrained_teacher(), "student": make_student()}.items():
        model.save_pretrained(folder / "models" / name)
        tokenizer().save_pretrained(folder / "models" / name)


def taught(
    folder: Path, way: str, moment: str = "after", grown: bool = False, loads_student: bool = False, **settings: Any
) -> dict[str, Any]:
    """Weights of four steps, how the models were divided before and in the trainer, and what was saved.

    Args:
        folder: Of the case, beside which are the models of `save_models`.
        way: One of `WAYS`.
        moment: Whether the teacher is loaded 'before' or 'after' the arguments.
        grown: Make the student from the teacher.
        loads_student: Read the student from files.
        settings: Training arguments.
    """
    # What the case before has left behind.
    unset_hf_deepspeed_config()
    teacher_folder, student_folder = (folder.parent / "models" / name for name in ("teacher", "student"))
    early = WAYS[way](teacher_folder) if moment == "before" else None
    settings = {"train_sampling_strategy": "sequential", "max_steps": 4, "allow_bad_teacher": True, **settings}
    args = arguments(folder, **settings)
    join_ranks(args)
    teacher = WAYS[way](teacher_folder) if early is None else early
    student: Any = make_student()
    if loads_student:
        student = BertForMaskedLM.from_pretrained(student_folder)
        for module in student.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    if grown:
        student = from_weak_teacher(
            teacher_folder, num_hidden_layers=2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
        )
    model = {"model": teacher, "teacher of a model": vars(teacher).get("model") if way != "folder" else None}.get(way)
    before = {} if model is None else own_shares(model)
    dataset = uneven_examples("masked").select(range(NUM_EXAMPLES))
    trainer = DWTTrainer(student, args, train_dataset=dataset, processing_class=tokenizer(), teacher=teacher)
    trainer.train()
    assert trainer.teacher is not None
    during, dtype = own_shares(trainer.teacher.model), trainer.teacher.model.dtype
    trainer.save_model(str(folder / "saved"))
    trainer.accelerator.wait_for_everyone()
    with safe_open(folder / "saved" / "model.safetensors", "pt") as file:
        saved = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return {
        "weights": whole_weights(trainer.model),
        "teacher before": before,
        "teacher": during,
        "dtype": dtype,
        "saved": saved,
        "facts": trainer.teacher_facts(),
        "identity": trainer._teaching.identity,
    }


def join_ranks(args: Any) -> None:
    """Let DeepSpeed know of the ranks before a model is loaded, which it does not notice by itself without GPUs."""
    if args.deepspeed_plugin is not None:
        import deepspeed

        deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False)


def cases_of(engine: str) -> dict[str, Callable[[Path], dict[str, Any]]]:
    """All cases of an engine by name."""
    chosen = SIZES if engine == "launched" else {**settings_of(engine), **SIZES}
    cases: dict[str, Any] = {}
    if engine == "launched":
        # The launcher has chosen the engine, ZeRO-3.
        for place in ("replicated", "sharded"):
            for moment in ("before", "after"):
                how = {"way": "model", "moment": moment, "teacher_placement": place, "loads_student": True}
                cases[f"{engine} {place} model {moment}"] = partial(taught, **how, **SIZES)
    if engine == "zero3":
        for way in WAYS:
            cases[f"{engine} replicated {way} before"] = partial(taught, way=way, moment="before", **chosen)
            for place in ("replicated", "sharded"):
                cases[f"{engine} {place} {way} after"] = partial(taught, way=way, teacher_placement=place, **chosen)
        half = {"teacher_dtype": "bfloat16", "teacher_placement": "sharded"}
        cases[f"{engine} half"] = partial(taught, way="model", **half, **chosen)
    if engine == "fsdp2":
        first_rank_only = {**chosen, "fsdp_config": chosen["fsdp_config"] | {"cpu_ram_efficient_loading": True}}
        for place in ("replicated", "sharded"):
            for way in ("model", "folder"):
                own = {"teacher_placement": place, "loads_student": True, **first_rank_only}
                cases[f"{engine} {place} {way} after"] = partial(taught, way=way, **own)
    if engine in ("zero3", "fsdp2"):
        own = {"teacher_placement": "sharded", **chosen}
        cases[f"{engine} student loaded"] = partial(taught, way="loaded", loads_student=True, **own)
        cases[f"{engine} student grown"] = partial(taught, way="loaded", grown=True, **own)
    return cases
