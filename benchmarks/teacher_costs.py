"""What is left of a teacher's cost once it has been let go, or was paid for before: against the student alone.

    python -m benchmarks.teacher_costs [--rounds 3] [--only steps reading memory]

Seconds are medians over rounds in which the arms take turns. Results are kept in results/teacher-costs-cpu.json.
"""

import gc
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.measuring import in_turn, resident_mebibytes, run_sections, summary
from benchmarks.step_arms import Arms, Setting
from hf_dwt import DWTTrainer, DWTTrainingArguments, Teacher, TeacherCache, cache_teacher, load_teacher

SMALL = Setting(layers=4, teacher_layers=2, hidden_size=256, teacher_hidden_size=256, num_steps=8)


def steps(rounds: int, setting: Setting = SMALL) -> dict[str, Any]:
    """A step after the hand-over, and one that learns from a cache, against the student alone."""
    with tempfile.TemporaryDirectory() as folder:
        arms = Arms(setting)
        cache = write_cache(arms, Path(folder))

        def released() -> list[float]:
            # Both start at random, so that the gap is 0: the teacher is let go before the first step.
            return arms.run(DWTTrainer, teacher=arms.teacher, settings={"weighting": "handover"})

        def cached() -> list[float]:
            return arms.run(DWTTrainer, teacher=cache)

        running: dict[str, Callable[[], list[float]]] = {"alone": arms.alone, "taught": arms.taught}
        running |= {"released": released, "cached": cached}
        for run in running.values():
            run()
        seconds = in_turn(running, rounds)
    rows = {name: summary(seconds[name], seconds["alone"]) for name in running}
    return {"setting": repr(setting), "arms": rows, "seconds": seconds}


def write_cache(arms: Arms, folder: Path) -> TeacherCache:
    """Keep the 16 most likely tokens of the teacher."""
    teacher = Teacher(arms.teacher, arms.setting.tokenizer())
    return cache_teacher(teacher, arms.dataset, folder, data_collator=arms.collator)


def reading(rounds: int, setting: Setting = SMALL) -> dict[str, Any]:
    """Looking a batch up in a cache, which happens before the step without workers, against a step of the student."""
    with tempfile.TemporaryDirectory() as folder:
        arms = Arms(setting)
        write_cache(arms, Path(folder))
        rows = list(arms.dataset)
        size = setting.batch_size
        batches = [arms.collator(rows[start : start + size]) for start in range(0, len(rows) - size + 1, size)]

        def from_memory() -> list[float]:
            told, seconds = TeacherCache(folder), []
            for batch in batches:
                started = time.perf_counter()
                told.add_to(batch)
                seconds.append(time.perf_counter() - started)
            return seconds

        def from_disk() -> list[float]:
            # The system forgets what nobody has mapped.
            for path in Path(folder).glob("*.arrow"):
                with path.open("rb") as file:
                    os.fsync(file.fileno())
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            return from_memory()

        running = {"step alone": arms.alone, "from disk": from_disk, "from memory": from_memory}
        seconds = in_turn(running, rounds)
    return {
        "setting": repr(setting),
        "arms": {name: summary(seconds[name], seconds["step alone"]) for name in running},
        "seconds": seconds,
    }


def memory(_: int, setting: Setting = SMALL) -> dict[str, Any]:
    """Memory in use before and after a teacher that was read from a folder is let go."""
    arms = Arms(setting)
    with tempfile.TemporaryDirectory() as folder, released_trainer(arms, Path(folder)) as trainer:
        assert trainer.teacher is not None
        weights = sum(each.numel() * each.element_size() for each in trainer.teacher.model.parameters())
        # Weights are mapped from the file: they are in memory once they have been read.
        for parameter in trainer.teacher.model.parameters():
            parameter.data = parameter.data.clone()
        gc.collect()
        before = resident_mebibytes()
        trainer._teaching.let_go(0)
        gc.collect()
        freed = before - resident_mebibytes()
    size = weights / 2**20
    return {"setting": repr(setting), "arms": {"teacher": {"MiB": size, "freed MiB": freed, "ratio": freed / size}}}


@contextmanager
def released_trainer(arms: Arms, folder: Path) -> Iterator[DWTTrainer]:
    """A trainer whose teacher nobody else holds."""
    arms.setting.model(is_teacher=True).save_pretrained(folder / "teacher")
    arms.setting.tokenizer().save_pretrained(folder / "teacher")
    args = DWTTrainingArguments(str(folder / "run"), use_cpu=arms.setting.device == "cpu", report_to="none")
    assert load_teacher(folder / "teacher").kind == arms.setting.kind
    yield DWTTrainer(arms.student, args, arms.collator, train_dataset=arms.dataset, teacher=str(folder / "teacher"))


SECTIONS = {"steps": steps, "reading": reading, "memory": memory}


if __name__ == "__main__":
    run_sections(SECTIONS, "teacher-costs-cpu", sys.argv[1:], __doc__)
