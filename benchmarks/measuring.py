"""How the benchmarks measure: arms taken in turn, ratios of medians within one run, peaks in processes of their own."""

import argparse
import ctypes
import gc
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import torch
from rich.console import Console
from rich.table import Table
from transformers.utils import logging

RESULTS = Path(__file__).parent / "results"
_IN_REPOSITORY = "benchmarks/results"
PACKAGES = ("torch", "transformers", "accelerate", "datasets", "tokenizers", "numpy")


def run_sections(
    sections: Mapping[str, Callable[[int], dict[str, Any]]],
    name: str,
    arguments: list[str],
    description: str,
    on_demand: Sequence[str] = (),
) -> None:
    """Measure, print and keep the sections that the command line asks for.

    Args:
        sections: Each takes the number of rounds; its result holds `arms`, and its docstring is its title.
        name: Of the file of results.
        arguments: Of the command line.
        description: For its help.
        on_demand: Sections that take long, and are measured only where they are named.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each arm (default: 3)")
    parser.add_argument(
        "--only", nargs="+", choices=sections, default=[section for section in sections if section not in on_demand]
    )
    options = parser.parse_args(arguments)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    for section in options.only:
        started = time.perf_counter()
        result = sections[section](options.rounds)
        result |= {"environment": environment(), "took": time.perf_counter() - started}
        show(f"{section}: {(sections[section].__doc__ or '').splitlines()[0]}", result)
        save(name, {section: result})


def environment(device: str = "cpu") -> dict[str, Any]:
    """Versions and machine, to stand beside every figure."""
    name = torch.cuda.get_device_name() if device == "cuda" else _processor()
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "commit": commit(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }


def in_turn(arms: Mapping[str, Callable[[], list[float]]], rounds: int) -> dict[str, list[list[float]]]:
    """Run the arms A B A B ...: for each, a list of rounds of seconds per step.

    Args:
        arms: Each returns the seconds of its steps.
        rounds: How often each is run.
    """
    seconds: dict[str, list[list[float]]] = {name: [] for name in arms}
    for _ in range(rounds):
        for name, run in arms.items():
            seconds[name].append(run())
            gc.collect()
    return seconds


def summary(rounds: list[list[float]], base: list[list[float]]) -> dict[str, float]:
    """Median seconds of all steps, their ratio to another arm's, and the lowest and highest ratio of a round."""
    ratios = [statistics.median(ours) / statistics.median(theirs) for ours, theirs in zip(rounds, base, strict=True)]
    middle = _median(rounds)
    return {"seconds": middle, "ratio": middle / _median(base), "lowest": min(ratios), "highest": max(ratios)}


def peak_in_child(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function in a fresh process, so that nothing that was used before counts in its peak.

    Raises:
        RuntimeError: If the process dies.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, function, args))
    process.start()
    sender.close()
    try:
        answer = receiver.recv()
    except EOFError:
        raise RuntimeError(f"`{function.__name__}` died, with exit code {process.exitcode}.") from None
    finally:
        process.join(timeout=60)
    if isinstance(answer, Exception):
        raise answer
    return answer


class PeakMemory:
    """Peak of the memory in use, in MiB above what was in use at the start of the block."""

    def __init__(self, device: str) -> None:
        self.device, self.mebibytes = device, 0.0

    def __enter__(self) -> "PeakMemory":
        gc.collect()
        if self.device == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self._start = torch.cuda.memory_allocated() / 2**20
        else:
            # Linux: forget the peak of the resident memory.
            Path("/proc/self/clear_refs").write_text("5")
            self._start = _status("VmRSS")
        return self

    def __exit__(self, *_: Any) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()
            peak = torch.cuda.max_memory_allocated() / 2**20
        else:
            peak = _status("VmHWM")
        self.mebibytes = peak - self._start


def resident_mebibytes() -> float:
    """Memory of this process, MiB; what its allocator holds back is given up first (glibc)."""
    ctypes.CDLL(None).malloc_trim(0)
    return _status("VmRSS")


def show(title: str, result: Mapping[str, Any]) -> None:
    """Print the arms of a result as a table, and what else it holds but the single times."""
    columns = list(dict.fromkeys(column for row in result["arms"].values() for column in row))
    table = Table(title=title, title_justify="left")
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    for arm, row in result["arms"].items():
        table.add_row(arm, *(_shown(row.get(column)) for column in columns))
    console = Console(width=120)
    console.print(table)
    for name, value in result.items():
        if name not in ("arms", "seconds"):
            console.print(f"{name}: {value}", highlight=False)


def save(name: str, results: Mapping[str, Any], folder: Path = RESULTS) -> None:
    """Write results as JSON, sections that were not measured this time kept."""
    path = folder / f"{name}.json"
    before = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(before | dict(results), indent=1) + "\n")


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
    return "" if value is None else str(value)


def _median(rounds: list[list[float]]) -> float:
    return statistics.median(second for each in rounds for second in each)


def commit() -> str:
    """This project's commit, and whether anything but results differs from it."""
    described = _git("describe", "--always")
    changes = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", f":(exclude,top){_IN_REPOSITORY}")
    return f"{described}-dirty" if changes else described or "not known"


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(RESULTS.parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _status(field: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def _processor() -> str:
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


def _answer(sender: Any, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    try:
        answer = function(*args)
    except Exception as error:  # what went wrong is raised where it can be read
        answer = error
    sender.send(answer)
    sender.close()
