"""What cells cost: operations by arithmetic, core-hours by the rate of those that have been run."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median

from rich.table import Table
from transformers import CONFIG_MAPPING, PreTrainedConfig

from benchmarks.study.cells import Cell, Planned
from benchmarks.study.config import Study
from benchmarks.study.results import Results
from hf_dwt.cli.recipe import DataSection
from hf_dwt.costs import StepCost, configured_flops

_COUNTS = ("done", "missing", "waiting")


@dataclass(frozen=True)
class Share:
    """Of one part.

    Attributes:
        part: Name of it.
        num_done: Cells.
        num_missing: Likewise, those that wait for others among them.
        num_waiting: Likewise.
        done: Core-hours, as measured.
        missing: Core-hours, as estimated.
    """

    part: str
    num_done: int
    num_missing: int
    num_waiting: int
    done: float
    missing: float


class Budget:
    """Estimates cells of a study.

    Args:
        study: Tells shapes, and the rate until there are lines.
        results: Tell the rate.
    """

    def __init__(self, study: Study, results: Results) -> None:
        self._study, self._results = study, results
        self._step_costs: dict[tuple[str, str, str | None], StepCost] = {}

    def shares(self, planned: Sequence[Planned]) -> list[Share]:
        """The parts one by one; a cell that several of them name belongs to the part that ran, or would run, it."""
        seen: set[tuple[str, ...]] = set()
        numbers: Counter[tuple[str, str]] = Counter()
        hours: dict[tuple[str, str], float] = defaultdict(float)
        for each in planned:
            if each.key in seen:
                continue
            seen.add(each.key)
            cell, line = each.cell, self._results.find(each.cell)
            home = cell.part if line is None else str(line["cell"]["part"])
            numbers[home, "waiting"] += bool(each.waits_for)
            state, seconds = ("missing", self.seconds(cell)) if line is None else ("done", line["seconds"])
            numbers[home, state] += 1
            processes = self._study.num_processes if line is None else line["cores"]
            hours[home, state] += seconds * processes / 3600
        parts = dict.fromkeys(part for part, _ in numbers)
        return [
            Share(part, *(numbers[part, state] for state in _COUNTS), hours[part, "done"], hours[part, "missing"])
            for part in parts
        ]

    def seconds(self, cell: Cell) -> float:
        """Seconds of a cell, estimated: its training, its curve and its final evaluation."""
        return self._study.seconds_per_cell + self.operations(cell) / self._rate(cell)

    def operations(self, cell: Cell) -> float:
        """Of each process in training and evaluations; a teacher that may be let go is counted to the end."""
        cost, base = self._step_cost(cell), self._study.inputs[cell.inputs]
        batch_size = int(base.arguments.get("per_device_train_batch_size", 8))
        num_curve = int(base.data.get("num_evaluation_examples", DataSection("").num_evaluation_examples))
        every = float(base.arguments.get("eval_steps", 0.1))
        # One more at the end, and the teacher's own score.
        points = (round(1 / every) if every < 1 else cell.steps // round(every)) + 1
        curve = num_curve / batch_size * (points * cost.student_forward + (points + 1) * cost.teacher_forward)
        final = (base.num_test_examples or num_curve) / batch_size * cost.student_forward
        return cell.steps * cost.distilled + curve + final

    def _step_cost(self, cell: Cell) -> StepCost:
        shape = (cell.inputs, cell.size, cell.teacher)
        if shape not in self._step_costs:
            base = self._study.inputs[cell.inputs]
            teacher = None if cell.teacher is None else self._study.teachers[cell.teacher].size
            batch_size = int(base.arguments.get("per_device_train_batch_size", 8))
            share = 1.0 if base.objective == "causal" else float(base.data.get("mask_probability", 0.15))
            counts = (batch_size, base.tokens, max(round(batch_size * base.tokens * share), 1))
            self._step_costs[shape] = StepCost(
                *(
                    0 if size is None else configured_flops(self._config(cell, size), base.objective, *counts)
                    for size in (cell.size, teacher)
                )
            )
        return self._step_costs[shape]

    def _config(self, cell: Cell, size: str) -> PreTrainedConfig:
        base = self._study.inputs[cell.inputs]
        fields = {"vocab_size": base.vocabulary, **base.student, **self._study.sizes[size][base.student["model_type"]]}
        config_class = CONFIG_MAPPING[fields.pop("model_type")]
        return config_class(**{config_class.attribute_map.get(key, key): value for key, value in fields.items()})

    def _rate(self, cell: Cell) -> float:
        """Operations per second of a process: by lines of the same size, else by all, else the study's own figure."""
        same = [rate for size, rate in self._rates if size == cell.size]
        found = same or [rate for _, rate in self._rates]
        return median(found) if found else self._study.operations_per_second

    @cached_property
    def _rates(self) -> list[tuple[str, float]]:
        rates = []
        for line in self._results.lines:
            cell = Cell(**line["cell"])
            known = cell.inputs in self._study.inputs and cell.size in self._study.sizes
            if known and (cell.teacher is None or cell.teacher in self._study.teachers):
                seconds = line["seconds"] - self._study.seconds_per_cell
                if seconds > 0:
                    rates.append((cell.size, self.operations(cell) / seconds))
        return rates


def table(shares: Sequence[Share]) -> Table:
    """The budget in numbers, part by part and together."""
    made = Table(box=None, pad_edge=False, show_footer=True)
    sums = {name: sum(vars(each)[name] for each in shares) for name in ("num_done", "num_missing", "num_waiting")}
    hours = {name: sum(vars(each)[name] for each in shares) for name in ("done", "missing")}
    made.add_column("part", "all")
    for name, total in (("cells", sums["num_done"] + sums["num_missing"]), *zip(_COUNTS, sums.values(), strict=True)):
        made.add_column(name, str(total), justify="right")
    for name, total in hours.items():
        made.add_column(f"core-h {name}", f"{total:.2f}", justify="right")
    for each in shares:
        counts = (each.num_done + each.num_missing, each.num_done, each.num_missing, each.num_waiting)
        made.add_row(each.part, *map(str, counts), f"{each.done:.2f}", f"{each.missing:.2f}")
    return made
