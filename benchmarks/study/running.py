"""One cell, from its recipe to its line of results.

python -m benchmarks.study.running JOB.json     (by a launcher, in several processes)
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import PreTrainedModel
from transformers.utils import logging

from benchmarks.measuring import PACKAGES, environment
from benchmarks.study.cells import TEACHERS
from benchmarks.study.clipping import ClippedSteps
from hf_dwt import __version__
from hf_dwt.assess import assess_teacher
from hf_dwt.cli.inputs import Inputs, read_inputs
from hf_dwt.cli.recipe import Recipe, make_recipe
from hf_dwt.cli.runs import make_trainer, mean_length, score_teacher, step_cost
from hf_dwt.cli.students import build_student, student_config
from hf_dwt.comparison import carry_out, operations, teacher_operations
from hf_dwt.data import MaskingCollator
from hf_dwt.identity import fingerprint_of

# Of the masks of final losses: the same for every cell, whatever its seed.
TEST_SEED = 0
FACTS = "facts.json"


@dataclass(frozen=True)
class Job:
    """What a process is given to do.

    Attributes:
        cell: As it is kept.
        recipe: Of the cell.
        commit: Of this project, when the runner started.
        folder: Of models and data, to which the recipe's paths are relative.
        num_test_examples: That final losses are of; None takes those of the curve.
        growing: Recipe by which the student is grown first; None if its own does.
        core: To run on; None leaves that open.
        launch: Starts several processes for it.
        answer: File for the line, where several processes do it.
    """

    cell: Mapping[str, Any]
    recipe: Mapping[str, Any]
    commit: str
    folder: str
    num_test_examples: int | None = None
    growing: Mapping[str, Any] | None = None
    core: int | None = None
    launch: str | None = None
    answer: str | None = None


def carry_out_job(job: Job) -> dict[str, Any]:
    """Train, evaluate, and return the line of results; the student is in its recipe's `output_dir`."""
    started = time.perf_counter()
    os.chdir(job.folder)
    quietly()
    seed = int(job.cell["seed"])
    if job.growing is not None:
        _grow(make_recipe(job.growing), str(job.recipe["student"]["name"]), seed)
    recipe = make_recipe(job.recipe)
    inputs, test = read_with_test(recipe, seed, job.num_test_examples)
    trainer = make_trainer(recipe, inputs, with_teacher=inputs.teacher is not None)
    clipped = ClippedSteps(trainer)
    run = carry_out(trainer, str(job.cell["id"]))
    teacher = inputs.teacher.model.config if inputs.teacher is not None and job.cell["teacher"] is not None else None
    cost = step_cost(recipe, inputs.kind, trainer.model.config, teacher, mean_length(recipe, inputs))
    final = score(trainer.model, recipe, inputs, test)
    where = environment()
    line = {
        "cell": dict(job.cell),
        "recipe": dict(job.recipe),
        "run": asdict(run),
        "final": final,
        "teacher": _heard(job, recipe, inputs, test),
        "grown_from": _parent(job, recipe, inputs, test),
        "cost": {
            "standalone_step": cost.standalone,
            "teacher_forward": cost.teacher_forward,
            "operations": operations(run, cost),
            "teacher_operations": teacher_operations(run, cost),
        },
        "clipped": clipped.share,
        "fingerprint": _fingerprint(trainer.model),
        "seconds": time.perf_counter() - started,
        "cores": 1 if job.launch is None else trainer.args.world_size,
        "threads": torch.get_num_threads(),
        "versions": {"hf_dwt": __version__} | {name: where[name] for name in ("python", *PACKAGES)},
        "commit": job.commit,
        "machine": where["device"],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    if trainer.args.process_index == 0:
        _write(Path(trainer.args.output_dir) / FACTS, _facts_of(line))
    return line


def read_with_test(recipe: Recipe, seed: int, num_test_examples: int | None) -> tuple[Inputs, Any]:
    """Inputs of a recipe, and the test set, with whose first examples the curve is drawn."""
    num_curve = recipe.data.num_evaluation_examples
    if num_test_examples is None or num_test_examples <= num_curve:
        inputs = read_inputs(recipe, seed)
        return inputs, inputs.evaluation
    whole = replace(recipe, data=replace(recipe.data, num_evaluation_examples=num_test_examples))
    inputs = read_inputs(whole, seed)
    curve = inputs.evaluation.select(range(min(num_curve, len(inputs.evaluation))))
    return replace(inputs, evaluation=curve), inputs.evaluation


def score(model: PreTrainedModel, recipe: Recipe, inputs: Inputs, test: Any) -> dict[str, Any]:
    """Loss and accuracy on the test set, with masks that are the same for every cell."""
    collator = inputs.collator
    if isinstance(collator, MaskingCollator):
        data = recipe.data
        collator = MaskingCollator(inputs.tokenizer, data.mask_probability, data.whole_word, seed=TEST_SEED)
    batch_size = int(recipe.arguments.get("per_device_eval_batch_size", 8))
    settings = {"processing_class": inputs.tokenizer, "data_collator": collator, "batch_size": batch_size}
    report = assess_teacher(model, test, **settings)
    names = ("loss", "accuracy", "num_examples", "unigram_loss")
    return {name: vars(report)[name] for name in names}


def _grow(recipe: Recipe, output: str, seed: int) -> None:
    """Write the student that another model than its teacher becomes."""
    inputs = read_inputs(recipe, seed)
    assert inputs.teacher is not None
    config = student_config(recipe, inputs.teacher.model.config, inputs.tokenizer)
    build_student(recipe, config, inputs.kind, seed, inputs.teacher).save_pretrained(output)


def _heard(job: Job, recipe: Recipe, inputs: Inputs, test: Any) -> dict[str, Any] | None:
    name = job.cell["teacher"]
    if name is None or inputs.teacher is None:
        return None
    facts = _known_facts(name, recipe, inputs, test, inputs.teacher.model)
    kept = {key: facts[key] for key in ("loss", "accuracy", "fingerprint", "training_operations", "seed")}
    return {"name": name, "curve_loss": score_teacher(recipe, inputs).loss, **kept}


def _parent(job: Job, recipe: Recipe, inputs: Inputs, test: Any) -> dict[str, Any] | None:
    name = job.cell["grown_from"]
    if name is None:
        return None
    model = None if inputs.teacher is None or job.growing is not None else inputs.teacher.model
    facts = _known_facts(name, recipe, inputs, test, model)
    return {"name": name, **{key: facts[key] for key in ("training_operations", "fingerprint")}}


def _known_facts(name: str, recipe: Recipe, inputs: Inputs, test: Any, model: PreTrainedModel | None) -> dict[str, Any]:
    """What was found of a model when the study trained it; of a published one when it was first looked at."""
    path = Path(TEACHERS) / name / FACTS
    looked_at = {"source": recipe.data.evaluation_source, "num_examples": len(test)}
    facts = dict(json.loads(path.read_text())) if path.is_file() else {}
    if "recipe" in facts or facts.get("looked_at") == looked_at:
        return facts
    assert model is not None, f"{name} has left no {FACTS}"
    facts = {**score(model, recipe, inputs, test), "fingerprint": _fingerprint(model)}
    facts |= {"training_operations": None, "seed": None, "looked_at": looked_at}
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, facts)
    return facts


def _facts_of(line: Mapping[str, Any]) -> dict[str, Any]:
    own = {"training_operations": line["cost"]["operations"], "seed": line["cell"]["seed"]}
    return {**line["final"], **own, "fingerprint": line["fingerprint"], "recipe": line["recipe"]}


def _fingerprint(model: PreTrainedModel) -> str:
    return fingerprint_of((name, nullcontext(each)) for name, each in model.named_parameters())


def _write(path: Path, content: Mapping[str, Any]) -> None:
    half = path.with_name(f"{path.name}.{os.getpid()}")
    half.write_text(json.dumps(content))
    half.rename(path)


def quietly() -> None:
    """Leave progress bars and information out of the log."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()


def pin(core: int | None) -> None:
    """Stay on a core, with one thread."""
    if core is not None:
        torch.set_num_threads(1)
        if sys.platform == "linux":
            os.sched_setaffinity(0, {core})


def end_when(closes: Callable[[], Any]) -> None:
    """End this process when a call returns or fails that waits for the one that started us to be gone."""

    def wait() -> None:
        with suppress(EOFError, OSError):
            closes()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main() -> None:
    """Do a job of several processes; the first one writes the line."""
    end_when(sys.stdin.read)
    job = Job(**json.loads(Path(sys.argv[1]).read_text()))
    answer = Path(str(job.answer)).absolute()
    line = carry_out_job(job)
    if int(os.environ.get("RANK", 0)) == 0:
        _write(answer, line)


if __name__ == "__main__":
    main()
