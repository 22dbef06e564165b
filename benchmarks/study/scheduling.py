"""Which cell comes next, until all have a line, time is up, or nothing more can be run."""

import fcntl
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.study.cells import TEACHERS, Cell, Planned, expand, teacher_cell
from benchmarks.study.config import Study
from benchmarks.study.kept import keep, recipe_in, restore
from benchmarks.study.recipes import folder_of, growing_of, recipe_of, same_recipe
from benchmarks.study.results import Results
from benchmarks.study.running import Job
from benchmarks.study.workers import Worker, ready, run_job
from hf_dwt.sections import RecipeError

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What is to be run.

    Attributes:
        study: Whose cells.
        results: Where they go.
        folder: Of models and data.
        only: Parts; none names all.
        commit: Of this project.
    """

    study: Study
    results: Results
    folder: Path
    only: tuple[str, ...] = ()
    commit: str = "not known"

    def cells(self) -> list[Planned]:
        """The cells of the parts, with the learning rates that are known by now.

        Raises:
            RecipeError: If one has a line of another run, or its recipe is wrong.
        """
        planned = expand(self.study, self.results.loss_of)
        for each in planned:
            if not each.waits_for:
                self.results.refuse_changes(each.cell, recipe_of(self.study, each.cell))
        return [each for each in planned if not self.only or each.cell.part in self.only]

    def missing(self) -> list[Planned]:
        """Those without a line; of several of the same choices the first."""
        seen: dict[tuple[str, ...], Planned] = {}
        for each in self.cells():
            if each.waits_for or self.results.find(each.cell) is None:
                seen.setdefault(each.key, each)
        return list(seen.values())

    def lacking(self, cell: Cell) -> list[str]:
        """Names of the models that a cell needs and that are not here, or are not those that the study asks for."""
        return [name for name in cell.needs if not self._is_here(name)]

    def _is_here(self, name: str) -> bool:
        """Whether it is published or was trained, here or elsewhere: then it is taken from beside its line."""
        if self.study.teachers[name].published is not None:
            return True
        trained_by = recipe_in(self.folder / TEACHERS / name)
        wanted = recipe_of(self.study, teacher_cell(self.study, name))
        if trained_by is not None and same_recipe(trained_by, wanted):
            return True
        return restore(self.results.folder, self.folder, name, wanted)

    def job(self, cell: Cell, core: int | None) -> Job:
        """What a process is given for a cell."""
        return Job(
            cell=cell.to_dict(),
            recipe=recipe_of(self.study, cell),
            commit=self.commit,
            folder=str(self.folder),
            num_test_examples=self.study.inputs[cell.inputs].num_test_examples,
            growing=growing_of(self.study, cell),
            core=core,
            launch=self.study.launch,
        )


@dataclass
class Outcome:
    """What became of the cells that were missing.

    Attributes:
        num_done: Cells that have a line now.
        failed: Their ids.
        waiting: Ids of cells that were not run, with the reason.
        is_out_of_time: Whether cells that could be run are left.
    """

    num_done: int = 0
    failed: list[str] = field(default_factory=list)
    waiting: dict[str, str] = field(default_factory=dict)
    is_out_of_time: bool = False


def run_missing(plan: Plan, cores: Sequence[int | None], seconds: float, say: Say) -> Outcome:
    """Run what is missing, a cell on each core, in the order of the study.

    Args:
        plan: What is to be run.
        cores: Numbers of the cores, one for each cell that runs at a time; None is any.
        seconds: After so many no new cell is started.
        say: Told of each cell that is done or has failed.

    Raises:
        RecipeError: If a cell has a line of another run, or another runner is at work in the folder.
    """
    outcome, ends = Outcome(), time.monotonic() + seconds
    running: dict[Worker, tuple[Cell, int]] = {}
    total = len(plan.missing())
    with _alone_in(plan.folder):
        try:
            while True:
                for slot in set(range(len(cores))) - {slot for _, slot in running.values()}:
                    cell = _next(plan, [cell for cell, _ in running.values()], outcome.failed)
                    if cell is None:
                        break
                    if time.monotonic() >= ends:
                        outcome.is_out_of_time = True
                        break
                    running[_start(plan, cell, cores[slot])] = cell, slot
                if not running:
                    break
                for worker in ready(list(running)):
                    cell, _ = running.pop(worker)
                    _finish(plan, cell, worker, outcome, total, say)
        finally:
            for worker in running:
                worker.stop()
    outcome.waiting = _reasons(plan, outcome.failed)
    return outcome


def _next(plan: Plan, running: Sequence[Cell], failed: Sequence[str]) -> Cell | None:
    """The first cell that can be run; or the teacher that it needs, if that has a line but its model is not here."""
    busy = {cell.choices for cell in running}
    for each in plan.missing():
        cell = each.cell
        if each.waits_for or cell.choices in busy or cell.id in failed:
            continue
        lacking = [teacher_cell(plan.study, name) for name in plan.lacking(cell)]
        if not lacking:
            return cell
        for teacher in lacking:
            if teacher.choices not in busy and teacher.id not in failed and plan.results.find(teacher) is not None:
                return teacher
    return None


def _start(plan: Plan, cell: Cell, core: int | None) -> Worker:
    target = plan.folder / folder_of(cell)
    for folder in (target, target.with_name(f"{target.name}-start")):
        shutil.rmtree(folder, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    return Worker(run_job, plan.job(cell, core), target.with_name(f"{target.name}.log"))


def _finish(plan: Plan, cell: Cell, worker: Worker, outcome: Outcome, total: int, say: Say) -> None:
    line = worker.result()
    if isinstance(line, str):
        outcome.failed.append(cell.id)
        say(f"{cell.id} FAILED: {line} (see {worker.log})")
        return
    known = plan.results.find(cell)
    if known is not None:
        same = known["fingerprint"] == line["fingerprint"]
        say(f"{cell.id}: trained again, {'the same weights' if same else 'NOT the weights of its line'}")
    else:
        if cell.part == TEACHERS:
            keep(plan.results.folder, plan.folder, cell.arm)
        plan.results.add(line)
        outcome.num_done += 1
        figures = f"loss {line['final']['loss']:.4f}, {line['seconds']:.0f} s"
        say(f"[{outcome.num_done} of {total}] {cell.id}: {figures}")
    worker.log.unlink(missing_ok=True)
    if cell.part != TEACHERS and not plan.study.keep_students:
        target = plan.folder / folder_of(cell)
        for folder in (target, target.with_name(f"{target.name}-start")):
            shutil.rmtree(folder, ignore_errors=True)


def _reasons(plan: Plan, failed: Sequence[str]) -> dict[str, str]:
    """Why cells are still missing, where it is not for lack of time."""
    reasons = {}
    for each in plan.missing():
        lacking = plan.lacking(each.cell)
        if each.waits_for:
            reasons[each.cell.id] = (
                f"waits for {len(each.waits_for)} cells that tune its rate: {each.waits_for[0]}, ..."
            )
        elif each.cell.id in failed:
            reasons[each.cell.id] = "failed"
        elif lacking and plan.results.find(teacher_cell(plan.study, lacking[0])) is None:
            reasons[each.cell.id] = f"waits for its teacher: {teacher_cell(plan.study, lacking[0]).id}"
    return reasons


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RecipeError(f"Another run of the study is at work in {folder}.") from error
        yield
