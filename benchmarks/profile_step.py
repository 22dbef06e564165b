"""Where a training step goes, by kind of work, and the least that arithmetic and memory allow for it.

    python -m benchmarks.profile_step [--rounds 1] [--only shares bounds]

Shares are those of the processor's time in the operations of three steps, as torch.profiler sees them. The bounds are
counted: multiplications at the rate of the largest product of the model, bytes at the rate of a copy; both rates are
measured here. Results are kept in results/profile-cpu.json.
"""

import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.measuring import run_sections
from benchmarks.step_arms import Arms, Setting

# The first word that is found in an operation's name tells its kind.
KINDS = {
    "products": ("addmm", "aten::mm", "bmm", "linear"),
    "attention": ("scaled_dot_product",),
    "optimiser": ("adam", "Optimizer", "_foreach", "linalg_vector_norm", "clip"),
    "softmax and losses": ("softmax", "nll", "cross_entropy", "exp", "log", "scatter", "gather", "vecdot"),
    "dropout": ("dropout", "bernoulli"),
    "activations and norms": ("gelu", "layer_norm", "tanh"),
    "embeddings": ("embedding", "index"),
    "copies and sums": ("copy", "clone", "add", "sub", "mul", "div", "sum", "fill", "zero", "cat", "where"),
}

PAPERS = Setting(num_steps=1)
BYTES = 4  # of a float32
# AdamW reads weight, gradient and two moments and writes three of them; clipping reads gradients twice, writes once.
TRAFFIC_OF_OPTIMISER = (4 + 3) + 3


def kind_of(operation: str) -> str:
    """Which kind of work an operation of PyTorch is."""
    return next((kind for kind, words in KINDS.items() if any(word in operation for word in words)), "other")


def shares(_: int, setting: Setting = PAPERS) -> dict[str, Any]:
    """Where the time of a step goes, in percent of the operations' own time."""
    arms = Arms(setting)
    rows = {}
    for name in ("stock", "alone", "taught"):
        run: Callable[[], list[float]] = getattr(arms, name)
        run()
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            run()
        rows[name] = shares_of(profiler)
    return {"setting": repr(setting), "arms": rows}


def shares_of(profiler: profile) -> dict[str, float]:
    """Percent of the operations' own time by kind, and its sum in seconds."""
    microseconds: Counter[str] = Counter()
    for event in profiler.key_averages():
        microseconds[kind_of(event.key)] += event.self_cpu_time_total
    total = sum(microseconds.values())
    percent = {kind: 100 * microseconds[kind] / total for kind in [*KINDS, "other"]}
    return percent | {"seconds": total / 1e6}


def bounds(rounds: int, setting: Setting = PAPERS) -> dict[str, Any]:
    """Seconds that a step takes at least: its multiplications, and the bytes that its optimiser has to move."""
    rate, bandwidth = product_rate(setting), copy_rate()
    num_parameters = setting.model().num_parameters()
    traffic = TRAFFIC_OF_OPTIMISER * BYTES * num_parameters
    arms = Arms(setting)
    rows = {}
    for name, with_teacher in (("alone", False), ("taught", True)):
        measured = statistics.median(second for _ in range(rounds) for second in getattr(arms, name)())
        flops = setting.flops(with_teacher=with_teacher)
        rows[name] = {
            "TFLOP": flops / 1e12,
            "products, s": flops / rate,
            "optimiser, s": traffic / bandwidth,
            "measured, s": measured,
            "of the bound": (flops / rate + traffic / bandwidth) / measured,
        }
    return {"setting": repr(setting), "arms": rows, "GFLOP/s": rate / 1e9, "GB/s": bandwidth / 1e9}


def product_rate(setting: Setting) -> float:
    """Operations per second of the model's largest product, a multiplication and an addition counted as two."""
    rows, hidden = setting.batch_size * setting.length, setting.hidden_size
    left, right = torch.randn(rows, hidden), torch.randn(4 * hidden, hidden)
    return 2 * rows * hidden * 4 * hidden / _fastest(lambda: left @ right.T)


def copy_rate() -> float:
    """Bytes per second that are read and written by a copy of 256 MiB."""
    source = torch.randn(2**26)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _fastest(lambda: target.copy_(source))


def _fastest(call: Callable[[], Any], times: int = 10) -> float:
    seconds = []
    for _ in range(times + 1):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


SECTIONS = {"shares": shares, "bounds": bounds}


if __name__ == "__main__":
    run_sections(SECTIONS, "profile-cpu", sys.argv[1:], __doc__)
