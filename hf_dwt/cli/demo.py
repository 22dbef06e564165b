"""`hf-dwt demo`: the whole thing on real data, in minutes on two CPU cores."""

import json
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState
from transformers.training_args import TrainingArguments
from transformers.utils import logging

from hf_dwt.cli.demo_inputs import prepare_molecules, prepare_speeches
from hf_dwt.cli.folders import require_writable
from hf_dwt.cli.inputs import Inputs, read_inputs
from hf_dwt.cli.interruption import resumable
from hf_dwt.cli.recipe import Recipe, make_recipe
from hf_dwt.cli.runs import (
    make_trainer,
    mean_length,
    publish_comparison,
    run_grown,
    run_student,
    run_twins,
    score_teacher,
    step_cost,
)
from hf_dwt.cli.students import student_config
from hf_dwt.cli.tables import comparison_rows, comparison_table, teacher_row
from hf_dwt.comparison import can_resume, growth_summary, summary
from hf_dwt.costs import StepCost
from hf_dwt.plots import plot_runs
from hf_dwt.positions import logits_at, positions_of, without_labels
from hf_dwt.sections import RecipeError

_TEACHER_SHARE_OF_TIME = 0.25
# After a few dozen steps that teacher still guesses by token frequency, and would be refused.
_FEWEST_TEACHER_STEPS = 100
_TEACHER_STEPS_PER_STEP = 5
# Its teachers are ahead of what students of minutes become, so they speak to the end, as the paper recommends.
_WEIGHTS = {"weighting": "linear", "soft_loss_weight": 4, "final_soft_loss_weight": 1}
_STEPS_FILE = "steps.json"
_NUM_COMPLETIONS = 3
_NUM_TIMED_STEPS = 6
_ORIGINS = {
    True: "a 2-layer GPT-2 that was just trained on the same speeches",
    False: "the published ALBERT of rxnmapper 0.4.3, small in parameters but not in compute (12 layers that share "
    "their weights), and better than a student of a few minutes: ordinary distillation, strictly speaking",
}


def demo(
    *,
    causal: bool,
    student_size: str,
    seed: int,
    minutes: float,
    steps: int | None,
    folder: str | None,
    prepare_only: bool,
    grow: bool = False,
    resume: bool = False,
) -> dict[str, Any]:
    """Train a larger student with a teacher, at equal steps and equal cost alone, and show what came of it.

    Args:
        causal: Speeches and causal LMs instead of molecules and masked ones.
        student_size: Such as '4x256': layers and hidden size.
        seed: Of masks, order and initial weights.
        minutes: Training time of all runs together, about.
        steps: Of the distilled run; takes the place of `minutes`. The teacher of the speeches gets five times as many,
            a hundred at least.
        folder: Where inputs, students and results go.
        prepare_only: Stop when the inputs are there.
        grow: Also train the student that is grown from the teacher.
        resume: Go on where the same command was interrupted.

    Returns:
        `runs` and `teacher`, see `tables`; `summary`, sentences; `completions`, each `given`, `before` and `after`
        training, and the `truth`; `output_dir`, of the student; `curves`, a file. Or `inputs`, a folder, alone.

    Raises:
        ValueError: If an option makes no sense.
        OSError: If the inputs cannot be fetched.
    """
    layers, hidden_size = _parse_size(student_size)
    if grow and not causal:
        raise RecipeError(
            "`--grow` goes with `--causal`: the teacher of the molecules is an ALBERT, the student a BERT, and a grown "
            "student is of its teacher's architecture."
        )
    if not 0 < minutes < math.inf:
        raise RecipeError(f"`--minutes` must be above 0 and finite, got {minutes:g}.")
    if steps is not None and steps < 1:
        raise RecipeError(f"`--steps` must be above 0, got {steps}.")
    console = Console()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    where = Path(folder or ("demo-speeches" if causal else "demo-molecules"))
    require_writable(where, "--output")
    if causal:
        prepare_speeches(where)
    else:
        prepare_molecules(where)
    if prepare_only:
        console.print(f"The inputs are in {where}.", markup=False)
        return {"inputs": str(where)}
    decisions = _Decisions(where / _STEPS_FILE, resume)
    with resumable(where / "teacher", where / "student"):
        started = time.monotonic()
        if causal:
            _train_speech_teacher(where, console, minutes, steps, seed, decisions)
        recipe = _recipe(where, causal, layers, hidden_size, seed)
        ends = started + 60 * minutes
        return _compare(recipe, console, steps, ends, decisions, origin=_ORIGINS[causal], grow=grow)


def _compare(
    recipe: Recipe,
    console: Console,
    steps: int | None,
    ends: float,
    decisions: "_Decisions",
    *,
    origin: str,
    grow: bool,
) -> dict[str, Any]:
    """Train the student with its teacher and alone, and show what came of it.

    Args:
        recipe: Of the student.
        console: To show it on.
        steps: Of the distilled run; None for as many as there is time for.
        ends: When all runs should be done, by the monotonic clock.
        decisions: Taken before, and kept.
        origin: Of the teacher, in words.
        grow: Also train the grown student.
    """
    seed, student_folder = int(recipe.arguments["seed"]), Path(recipe.arguments["output_dir"])
    inputs = read_inputs(recipe, seed)
    assert inputs.teacher is not None
    config = student_config(recipe, inputs.teacher.model.config, inputs.tokenizer)
    cost = step_cost(recipe, inputs.kind, config, inputs.teacher.model.config, mean_length(recipe, inputs))
    console.print(_introduction(inputs, config.model_type, cost, origin))
    resume, num_grown = decisions.resume, int(grow)
    measured = partial(_steps_for, recipe, inputs, cost, ends, num_grown=num_grown)
    steps = decisions.take("student", measured) if steps is None else steps
    recipe = replace(recipe, arguments={**recipe.arguments, "max_steps": steps})
    before = make_trainer(recipe, inputs, with_teacher=False).model
    distilled = run_student(recipe, inputs, resume and can_resume(student_folder))
    runs = [distilled, *run_twins(recipe, inputs, distilled, cost, resume)]
    grown = [run_grown(recipe, inputs, steps, resume)] if grow else []
    scored = score_teacher(recipe, inputs)
    teacher, curves = teacher_row(scored), student_folder.with_name("curves.png")
    rows = comparison_rows([*runs, *grown], teacher, cost)
    console.print(comparison_table(rows, teacher))
    lines = [*summary(*runs), *map(partial(growth_summary, runs[1]), grown)]
    for line in lines:
        console.print(line)
    after = type(before).from_pretrained(student_folder).eval()
    completed = completions(inputs, before.eval(), after)
    for each in completed:
        for line in ("", *(f"{name:<8}{text}" for name, text in each.items())):
            console.print(line, markup=False, highlight=False)
    publish_comparison(recipe, runs[1:])
    plot_runs([*runs, *grown], scored.loss, curves)
    console.print(f"The student is in {student_folder}, the curves are in {curves}.", markup=False)
    told = {"runs": rows, "teacher": teacher, "summary": lines, "completions": completed}
    return {**told, "output_dir": str(student_folder), "curves": str(curves)}


class _Decisions:
    """How many steps each run takes: decided once, and kept in a file, since what decides is the clock.

    Args:
        path: Of the file.
        resume: Whether what is in it holds; else it is removed.
    """

    def __init__(self, path: Path, resume: bool) -> None:
        self.resume = resume
        self._path = path
        if not resume:
            path.unlink(missing_ok=True)

    def take(self, run: str, decide: Callable[[], int]) -> int:
        taken: dict[str, int] = json.loads(self._path.read_text()) if self._path.is_file() else {}
        if run not in taken:
            taken[run] = decide()
            self._path.write_text(json.dumps(taken))
        return taken[run]


def completions(inputs: Inputs, before: PreTrainedModel, after: PreTrainedModel) -> list[dict[str, str]]:
    """Fill in, or continue, a few held-out examples with the untrained and the trained student."""
    show = _filled if inputs.kind == "masked" else _continued
    rows = inputs.evaluation.select(range(_NUM_COMPLETIONS))
    found = []
    for row in rows:
        truth, given, old = show(inputs, before, row)
        found.append({"given": given, "before": old, "after": show(inputs, after, row)[2], "truth": truth})
    return found


@torch.no_grad()
def _filled(inputs: Inputs, model: PreTrainedModel, row: dict[str, Any]) -> tuple[str, str, str]:
    batch = inputs.collator.for_evaluation()([row])
    positions = positions_of("masked", batch)
    guesses = logits_at(model, without_labels(batch), positions).argmax(-1)
    original, hidden, filled = torch.tensor(row["input_ids"]), batch["input_ids"][0], batch["input_ids"][0].clone()
    filled[positions.indices] = guesses
    decode = inputs.tokenizer.decode
    shown = "".join("_" if token == inputs.tokenizer.mask_token_id else decode([token]) for token in hidden[1:-1])
    return decode(original[1:-1]), shown, decode(filled[1:-1])


@torch.no_grad()
def _continued(inputs: Inputs, model: PreTrainedModel, row: dict[str, Any]) -> tuple[str, str, str]:
    ids, decode = torch.tensor([row["input_ids"]]), inputs.tokenizer.decode
    half = ids.shape[1] // 2
    mask = torch.ones_like(ids[:, :half])
    pad = inputs.tokenizer.pad_token_id
    made = model.generate(ids[:, :half], attention_mask=mask, max_new_tokens=20, do_sample=False, pad_token_id=pad)
    texts = (decode(part).replace("\n", " ") for part in (ids[0, half : half + 20], ids[0, :half], made[0, half:]))
    truth, shown, continued = texts
    return truth, shown, continued


def _recipe(where: Path, causal: bool, layers: int, hidden_size: int, seed: int) -> Recipe:
    """The demo as a recipe; `trainer_configs/recipes/` has ones of the same sizes and text."""
    heads = max(hidden_size // 64, 1)
    if causal:
        student = {"model_type": "gpt2", "n_layer": layers, "n_embd": hidden_size, "n_head": heads, "n_positions": 64}
        data = {"form": "blocks", "length": 64}
        rate = 1e-3
    else:
        student = {"model_type": "bert", "num_hidden_layers": layers, "hidden_size": hidden_size}
        student |= {"num_attention_heads": heads, "intermediate_size": 4 * hidden_size, "max_position_embeddings": 64}
        data = {"form": "sentences", "length": 64}
        rate = 5e-4
    files = {"source": str(where / "train.txt"), "evaluation_source": str(where / "held_out.txt")}
    arguments = {"output_dir": str(where / "student"), "learning_rate": rate, "warmup_steps": 0.1, "seed": seed}
    arguments |= {"per_device_train_batch_size": 32, "per_device_eval_batch_size": 64, "save_strategy": "no"}
    return make_recipe(
        {
            "teacher": {"name": str(where / "teacher")},
            "student": student,
            "data": {**files, **data, "num_evaluation_examples": 512},
            "arguments": {**arguments, **_WEIGHTS, "eval_steps": 0.125, "use_cpu": not torch.cuda.is_available()},
        }
    )


def _train_speech_teacher(
    where: Path, console: Console, minutes: float, student_steps: int | None, seed: int, decisions: _Decisions
) -> None:
    """Train last year's small model, two layers, on the same speeches: by time, or by the student's steps."""
    folder = where / "teacher"
    if (folder / "config.json").is_file():
        return
    recipe = _recipe(where, causal=True, layers=2, hidden_size=128, seed=seed)
    own = {"output_dir": str(folder), "learning_rate": 2e-3}
    recipe = make_recipe(
        {
            "objective": "causal",
            "tokenizer": {"kind": "bpe", "vocab_size": 2048},
            "student": recipe.student,
            "data": vars(recipe.data),
            "arguments": {**recipe.arguments, **own, "max_steps": _NUM_TIMED_STEPS},
        }
    )
    inputs = read_inputs(recipe, seed)

    def decide() -> int:
        if student_steps is not None:
            return max(_TEACHER_STEPS_PER_STEP * student_steps, _FEWEST_TEACHER_STEPS)
        seconds = _TEACHER_SHARE_OF_TIME * 60 * minutes
        return max(round(seconds / _seconds_per_step(recipe, inputs, with_teacher=False)), _FEWEST_TEACHER_STEPS)

    steps = decisions.take("teacher", decide)
    console.print(f"First the teacher: a 2-layer GPT-2 of hidden size 128, {steps:,} steps.")
    recipe = replace(recipe, arguments={**recipe.arguments, "max_steps": steps})
    run_student(recipe, inputs, decisions.resume and can_resume(folder))


def _introduction(inputs: Inputs, architecture: str, cost: StepCost, origin: str) -> str:
    assert inputs.teacher is not None
    size = inputs.teacher.model.num_parameters()
    relative = cost.teacher_forward / cost.student_forward
    return (
        f"The teacher: {origin}. It has {size:,} parameters; its forward pass costs {relative:.2f} of the student's "
        f"({architecture}), {cost.teacher_share:.0%} of a distilled step."
    )


def _steps_for(recipe: Recipe, inputs: Inputs, cost: StepCost, ends: float, *, num_grown: int) -> int:
    """Steps of the distilled run so that it, its two twins and a grown one end about then, evaluations included."""
    seconds = ends - time.monotonic()
    distilled = _seconds_per_step(recipe, inputs, with_teacher=True)
    alone = _seconds_per_step(recipe, inputs, with_teacher=False)
    per_step = distilled + alone * (1 + num_grown + cost.distilled / cost.standalone)
    return max(round(0.85 * seconds / per_step), 8)


def _seconds_per_step(recipe: Recipe, inputs: Inputs, *, with_teacher: bool) -> float:
    timer = _StepTimer()
    with tempfile.TemporaryDirectory() as scratch:
        changes = {"output_dir": scratch, "max_steps": _NUM_TIMED_STEPS, "eval_strategy": "no", "disable_tqdm": True}
        trainer = make_trainer(recipe, inputs, with_teacher=with_teacher, **changes, logging_strategy="no")
        trainer.add_callback(timer)
        trainer.train()
    # The first steps warm up.
    return (timer.ends[-1] - timer.ends[1]) / (len(timer.ends) - 2)


class _StepTimer(TrainerCallback):  # type: ignore[misc]
    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.ends.append(time.perf_counter())


def _parse_size(size: str) -> tuple[int, int]:
    layers, _, hidden_size = size.partition("x")
    if not (layers.isdigit() and hidden_size.isdigit() and int(layers) and int(hidden_size)):
        raise RecipeError(f"`--student-size` is LAYERSxHIDDEN, such as 4x256, got {size!r}.")
    if int(hidden_size) > 64 and int(hidden_size) % 64:
        raise RecipeError(f"`--student-size`: the hidden size must be a multiple of 64, got {hidden_size}.")
    return int(layers), int(hidden_size)
