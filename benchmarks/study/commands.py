"""What the command line does; what it prints is printed here."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from benchmarks.measuring import commit
from benchmarks.study.budget import Budget, table
from benchmarks.study.cells import expand
from benchmarks.study.config import Study
from benchmarks.study.inputs import prepare
from benchmarks.study.results import Results
from benchmarks.study.running import quietly
from benchmarks.study.scheduling import Plan, run_missing
from benchmarks.study.workers import usable_cores
from hf_dwt.sections import RecipeError


def run(
    study: Study, results: Path, folder: Path, only: Sequence[str], *, cores: int, minutes: float, again: str
) -> int:
    """Run what is missing, and say what is still missing then.

    Args:
        study: Whose cells.
        results: Folder of the lines.
        folder: Of models and data.
        only: Parts; none names all.
        cores: Cells at a time.
        minutes: After which none is started.
        again: The command, for whoever wants to go on.
    """
    quietly()
    if cores < 1 or minutes <= 0:
        raise RecipeError("`--cores` and `--minutes` must be above 0.")
    plan = Plan(study, Results(results), folder, tuple(only), commit())
    _say_budget(plan)
    usable = usable_cores()
    if cores > len(usable):
        _say(f"Only {len(usable)} of {cores} cores can be used: cells share them.")
    prepare(study, folder)
    slots = [None if study.launch else usable[index % len(usable)] for index in range(cores)]
    try:
        outcome = run_missing(plan, slots, 60 * minutes, _say)
    except KeyboardInterrupt:
        _say(f"Stopped; what was being run is lost, the rest is in {results}. To go on:\n  {again}")
        return 130
    _say_budget(plan)
    for cell, reason in outcome.waiting.items():
        _say(f"not run: {cell} ({reason})")
    if outcome.is_out_of_time:
        _say(f"Time is up. To go on:\n  {again}")
    return 1 if outcome.failed else 0


def list_cells(study: Study, results: Path, folder: Path, only: Sequence[str]) -> int:
    """Print each cell with its state and its cost, and the budget."""
    quietly()
    plan = Plan(study, Results(results), folder, tuple(only))
    budget = Budget(study, plan.results)
    seen: dict[tuple[str, ...], str] = {}
    for each in plan.cells():
        cell, line = each.cell, plan.results.find(each.cell)
        first = seen.setdefault(each.key, cell.id)
        rate = "" if cell.learning_rate is None else f", rate {cell.learning_rate:g}"
        if line is not None:
            own = line["cell"]["id"]
            state = f"done, loss {line['final']['loss']:.4f}" + ("" if own == cell.id else f" (as {own})")
        elif first != cell.id:
            state = f"as {first}"
        else:
            state = f"about {budget.seconds(cell):.0f} s"
            state += f", waits for {len(each.waits_for)} cells of tuning" if each.waits_for else ""
        _say(f"{cell.id}: {cell.steps} steps{rate}; {state}")
    _say_budget(plan)
    return 0


def measure_times(study: Study, results: Path, folder: Path, only: Sequence[str]) -> int:
    """Measure step times of the parts that are named, each model and start in turn, and keep them."""
    from benchmarks.study.times import measure

    plan = Plan(study, Results(results), folder, tuple(only))
    prepare(study, folder)
    for row in measure(plan):
        heard = row["teacher"] or "no teacher"
        _say(f"{row['inputs']}, {row['size']}, {row['start']}, {heard}: {1000 * row['seconds_per_step']:.1f} ms a step")
    return 0


def write_report(study: Study, results: Path, target: Path, command: str, committed: Path | None) -> int:
    """Write the report of the lines that are there into a folder; what is missing is told in it.

    Args:
        study: Whose cells.
        results: Folder of the lines.
        target: Folder of the report.
        command: As the report names it.
        committed: Folder of lines to compare with; None compares with none.
    """
    from benchmarks.study.report import write

    planned = expand(study, Results(results).loss_of)
    cells = [each.cell.to_dict() for each in planned]
    files = write(results, study.parts, target, planned=cells, command=command, committed=committed)
    _say("\n".join(map(str, files)))
    return 0


def _say_budget(plan: Plan) -> None:
    budget, everything = Budget(plan.study, plan.results), replace(plan, only=())
    Console().print(table(budget.shares(plan.cells())))
    if plan.only:
        shares = budget.shares(everything.cells())
        done, missing = (sum(vars(each)[name] for each in shares) for name in ("done", "missing"))
        _say(f"of the whole study: {done:.2f} core-h done, {missing:.2f} core-h missing")


def _say(text: str) -> None:
    print(text, flush=True)
