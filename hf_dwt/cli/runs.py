"""Running a recipe: the student with its teacher and, for comparison, alone."""

import math
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import datasets
import torch
from accelerate import PartialState
from transformers import PreTrainedConfig, get_scheduler

from hf_dwt.arguments import DistillationArguments, DWTTrainingArguments
from hf_dwt.assess import assess_teacher
from hf_dwt.cache.reading import TeacherCache
from hf_dwt.cache.writing import cache_teacher
from hf_dwt.cached_teaching import require_no_model, require_own_batches
from hf_dwt.checkpoints import has_whole_checkpoint, last_whole_checkpoint
from hf_dwt.cli.inputs import Inputs
from hf_dwt.cli.interruption import carry_out_interruptibly
from hf_dwt.cli.recipe import GrowthSection, Recipe, reading
from hf_dwt.cli.students import build_student, student_config
from hf_dwt.comparison import Run, can_resume, equal_cost_steps, forget_result
from hf_dwt.costs import StepCost, configured_flops
from hf_dwt.hub.push import failure, prepare, push_or_tell, target_of
from hf_dwt.language_models import Kind
from hf_dwt.model_files import looks_local
from hf_dwt.publishing.comparison import add_comparison
from hf_dwt.publishing.record import RECORD_FILE, Repetition
from hf_dwt.sections import RecipeError
from hf_dwt.teacher import Teacher
from hf_dwt.trainer import DWTTrainer

# Only the recipe's student is pushed, not its twins, nor what is measured or scored.
UNPUBLISHED = {"push_to_hub": False}
# Folders of the twins, in that of the student.
_TWINS = ("alone-equal-steps", "alone-equal-cost", "grown")
REPEAT = f"hf-dwt train {RECORD_FILE}"
# Ten points make a curve; a recipe may say otherwise.
_DEFAULT_ARGUMENTS = {"output_dir": "student", "eval_strategy": "steps", "eval_steps": 0.1, "logging_steps": 0.01}


def arguments_for(recipe: Recipe, **changes: Any) -> DWTTrainingArguments:
    """Training arguments of a run: the recipe's on top of the command line's defaults, changes on top of both.

    Raises:
        ValueError: If one is out of its range, or is of no use with its schedule or the recipe's cache.
    """
    # Pinned memory is for transfers to a GPU; without one PyTorch only warns.
    pin = {"dataloader_pin_memory": torch.cuda.is_available()}
    with reading("arguments"):
        args = DWTTrainingArguments(**{**_DEFAULT_ARGUMENTS, **pin, **recipe.arguments, **changes})
    _check_ranges(args)
    _try_schedule(args)
    if recipe.cache is not None:
        # Known here, before hours of caching.
        require_no_model(args)
        require_own_batches(args.accelerator_config.dispatch_batches)
    return args


def _check_ranges(args: DWTTrainingArguments) -> None:
    """Refuse numbers that transformers takes, and fails on or makes no step with when all else has been read.

    Raises:
        RecipeError: Naming the setting.
    """
    for name in ("gradient_accumulation_steps", "per_device_train_batch_size", "per_device_eval_batch_size"):
        if getattr(args, name) < 1:
            raise RecipeError(f"`arguments.{name}` is {getattr(args, name)}: it should be at least 1.")
    if args.max_steps < 1 and args.max_steps != -1:
        raise RecipeError(
            f"`arguments.max_steps` is {args.max_steps}: it should be at least 1, or -1 to go by `num_train_epochs`."
        )
    if args.max_steps == -1 and not 0 < args.num_train_epochs < math.inf:
        raise RecipeError(
            f"`arguments.num_train_epochs` is {args.num_train_epochs}: it should be finite and above 0 where there is "
            "no `max_steps`."
        )


def _try_schedule(args: DWTTrainingArguments) -> None:
    """Make the learning rate's schedule for nothing: what it does not take, transformers tells when it makes it.

    Raises:
        RecipeError: If it cannot be made.
    """
    # `Trainer` has two groups, one of them without weight decay.
    optimizer = torch.optim.SGD([{"params": [torch.zeros(1)]} for _ in range(2)], lr=args.learning_rate)
    schedule, settings = args.lr_scheduler_type, args.lr_scheduler_kwargs
    try:
        get_scheduler(schedule, optimizer, 0, max(args.max_steps, 1), settings)
    except (TypeError, ValueError) as error:
        raise RecipeError(
            f"`arguments.lr_scheduler_kwargs` is {settings!r}, which the schedule {schedule.value!r} does not take: "
            f"{error}"
        ) from error


def make_trainer(recipe: Recipe, inputs: Inputs, *, with_teacher: bool, **changes: Any) -> DWTTrainer:
    """Build a trainer for a fresh student; without the teacher, what only concerns it is left out."""
    recipe = recipe if with_teacher else _without_distillation(recipe)
    args = arguments_for(recipe, **changes)
    config = student_config(recipe, inputs.teacher and inputs.teacher.model.config, inputs.tokenizer)
    return DWTTrainer(
        build_student(recipe, config, inputs.kind, args.seed, inputs.teacher),
        args,
        inputs.collator,
        train_dataset=inputs.train,
        eval_dataset=inputs.evaluation,
        processing_class=inputs.tokenizer,
        teacher=_heard_teacher(recipe, inputs, args) if with_teacher else None,
    )


def _heard_teacher(recipe: Recipe, inputs: Inputs, args: DWTTrainingArguments) -> Teacher | TeacherCache | None:
    """The teacher itself, or what is cached of it, which is written first unless it is there."""
    if recipe.cache is None or inputs.teacher is None:
        return inputs.teacher
    teacher = inputs.teacher
    teacher.model.to(args.device)
    settings = {"processing_class": inputs.tokenizer, "data_collator": inputs.collator}
    return cache_teacher(teacher, inputs.train, **asdict(recipe.cache), **settings, batch_size=args.train_batch_size)


def _without_distillation(recipe: Recipe) -> Recipe:
    own = {field.name for field in fields(DistillationArguments)}
    return replace(recipe, arguments={name: value for name, value in recipe.arguments.items() if name not in own})


def require_way_to_begin(output_dir: str, resume: bool) -> None:
    """Check that a run writes over no other, or has something to go on from.

    Raises:
        RecipeError: If another run's checkpoints are in the way.
        ValueError: If there is nothing to resume from.
    """
    # Those of twins too: if this run is interrupted and resumed, its twins would go on from them.
    for folder in () if resume else (Path(output_dir), *(Path(output_dir, twin) for twin in _TWINS)):
        if has_whole_checkpoint(folder):
            raise RecipeError(f"{folder} holds checkpoints: pass `--resume` to go on, or name another folder.")
    if resume and not can_resume(Path(output_dir)):
        last_whole_checkpoint(output_dir)


def run_student(recipe: Recipe, inputs: Inputs, resume: bool = False, *, command: str | None = None) -> Run:
    """Train the recipe's student, with its teacher if it has one.

    Args:
        recipe: What to train.
        inputs: Of the recipe.
        resume: Take up an interrupted run.
        command: Repeats the run, given the student's record; None if the recipe alone does not.

    Raises:
        ValueError: If another run's checkpoints are in the way, or there are none to resume from.
    """
    args = arguments_for(recipe)
    require_way_to_begin(args.output_dir, resume)
    if not resume and args.process_index == 0:
        for folder in (".", *_TWINS):
            forget_result(Path(args.output_dir, folder))
    has_teacher = inputs.teacher is not None
    trainer = make_trainer(recipe, inputs, with_teacher=has_teacher)
    trainer.data_sources = _hub_sources(recipe)
    if command is not None:
        trainer.repetition = Repetition(command, _repeatable(recipe, inputs.teacher))
    run = carry_out_interruptibly(trainer, "with teacher" if has_teacher else "alone", resume)
    if trainer.state.log_history:
        # Else it was finished before, and has its card.
        trainer.create_model_card(model_name=target_of(trainer.args).repo_id.split("/")[-1])
    return run


def _hub_sources(recipe: Recipe) -> list[dict[str, str | None]]:
    """Data sets of the Hub in a recipe's `data`: what is not here, and has been read, is there."""
    named = [each for each in recipe.data.sources() if isinstance(each.source, str)]
    return [
        {"name": each.source, "revision": each.revision}
        for each in named
        if not looks_local(each.source) and not any(character in each.source for character in "*?[")
    ]


def _repeatable(recipe: Recipe, teacher: Teacher | None) -> dict[str, Any]:
    """The recipe as its file would have it, at the teacher's commit, without secrets and without where to push."""
    content = {name: value for name, value in asdict(recipe).items() if value is not None}
    if teacher is not None and teacher.origin.commit is not None:
        content["teacher"]["revision"] = teacher.origin.commit
    own = {name: value for name, value in recipe.arguments.items() if not name.startswith(("hub_", "push_to_hub"))}
    return {**content, "arguments": {name: value for name, value in own.items() if not name.endswith("_token")}}


def publish_comparison(recipe: Recipe, twins: Sequence[Run]) -> None:
    """Tell in the student's record and card how it fares alone; where it was pushed they follow, one small commit.

    The student itself is not kept waiting for that: its twins may take longer than it did. Without twins there is a
    commit only if there are results that were not there yet when the student was pushed.

    Raises:
        PushFailed: If they could not be pushed.
    """
    args = arguments_for(recipe)
    if args.process_index > 0:
        return
    target = target_of(args)
    files = add_comparison(args.output_dir, [asdict(run) for run in twins], target.repo_id.split("/")[-1])
    if args.push_to_hub:
        try:
            target = prepare(target, args.hub_private_repo)
        except OSError as error:
            raise failure(error, target, args.output_dir) from error
        message = "Tell how the student fares alone" if twins else "Tell how the student fares"
        push_or_tell(files, target, message, args.output_dir)


def run_twins(recipe: Recipe, inputs: Inputs, distilled: Run, cost: StepCost | None, resume: bool = False) -> list[Run]:
    """Train the same student alone on the same batches: at equal steps and, if it can be counted, at equal cost."""
    budgets = {"alone, equal steps": distilled.steps}
    if cost is not None:
        budgets["alone, equal cost"] = equal_cost_steps(distilled, cost)
    runs = []
    for name, steps in budgets.items():
        folder = Path(arguments_for(recipe).output_dir, name.replace(", ", "-").replace(" ", "-"))
        assert folder.name in _TWINS
        changes = {"output_dir": str(folder), "max_steps": steps}
        trainer = make_trainer(recipe, inputs, with_teacher=False, **changes, **UNPUBLISHED)
        runs.append(carry_out_interruptibly(trainer, name, resume and can_resume(folder)))
    return runs


def run_grown(recipe: Recipe, inputs: Inputs, steps: int, resume: bool = False) -> Run:
    """Train the same student alone on the same batches, grown from the teacher instead of at random."""
    folder = Path(arguments_for(recipe).output_dir) / "grown"
    grown = replace(recipe, growth=GrowthSection())
    changes = {"output_dir": str(folder), "max_steps": steps}
    trainer = make_trainer(grown, inputs, with_teacher=False, **changes, **UNPUBLISHED)
    return carry_out_interruptibly(trainer, "grown, alone", resume and can_resume(folder))


def score_teacher(recipe: Recipe, inputs: Inputs) -> Run:
    """Score the teacher on the students' held-out set, on each process alone: no engine would take a second model."""
    assert inputs.teacher is not None
    # New arguments would take the device away from trainers that are still in use.
    inputs.teacher.model.to(PartialState().device)
    settings = recipe.arguments
    report = assess_teacher(
        inputs.teacher,
        inputs.evaluation,
        processing_class=inputs.tokenizer,
        data_collator=inputs.collator,
        batch_size=settings.get("per_device_eval_batch_size", DWTTrainingArguments.per_device_eval_batch_size),
        seed=settings.get("seed", DWTTrainingArguments.seed),
    )
    return Run("teacher", 0, report.loss, report.accuracy, 0.0, 0, ())


def step_cost(
    recipe: Recipe, kind: Kind, student: PreTrainedConfig, teacher: PreTrainedConfig | None, length: float
) -> StepCost:
    """Count what one micro-batch costs, by arithmetic.

    Args:
        recipe: Tells the batch size and the share of tokens that are predicted.
        kind: A causal LM predicts every token.
        student: Configuration.
        teacher: Configuration, None for no teacher.
        length: Mean tokens per example.

    Raises:
        ValueError: If the operations of one of the models cannot be counted.
    """
    batch_size, tokens = int(recipe.arguments.get("per_device_train_batch_size", 8)), max(round(length), 1)
    share = 1.0 if kind == "causal" else recipe.data.mask_probability
    shape = (batch_size, tokens, max(round(batch_size * tokens * share), 1))

    costs = [0 if config is None else configured_flops(config, kind, *shape) for config in (student, teacher)]
    return StepCost(*costs)


def mean_length(recipe: Recipe, inputs: Inputs) -> float:
    """Mean tokens per training example, from the first thousand; a stream is taken to be full."""
    if isinstance(inputs.train, datasets.IterableDataset):
        return recipe.data.length
    rows = inputs.train.select(range(min(1000, len(inputs.train))))
    return fmean(map(len, rows["input_ids"]))
