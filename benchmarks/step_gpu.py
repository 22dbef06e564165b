"""What a step costs on one GPU in bfloat16: seconds, memory, share of the chip's arithmetic, and where the time goes.

    python -m benchmarks.step_gpu [--rounds 3] [--peak-tflops 989] [--only paper large causal]

MFU: the operations of a step by arithmetic (heads where predictions are asked for, nothing recomputed), per second, as
a share of the dense bfloat16 peak that the vendor gives for an H100 or H200 (989 TFLOP/s; `--peak-tflops` for others).
Results are kept in results/step-cuda.json.
"""

import argparse
import sys
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile
from transformers.utils import logging

from benchmarks.measuring import RESULTS, PeakMemory, environment, in_turn, save, show, summary
from benchmarks.step import causal
from benchmarks.step_arms import Arms, Setting

BF16 = {"bf16": True, "dataloader_num_workers": 4}
PAPER = Setting(device="cuda", batch_size=16, num_steps=30, arguments=BF16)
BILLION = {"hidden_size": 2048, "teacher_hidden_size": 1280, "teacher_layers": 12, "num_steps": 8}
SETTINGS = {
    "paper": {
        "BERT 6x768, teacher 4x768, 16 x 128 tokens": PAPER,
        "BERT 6x768, teacher 4x768, 256 x 128 tokens": replace(PAPER, batch_size=256),
    },
    "large": {
        "BERT 20x2048, teacher 12x1280, 64 x 128 tokens": replace(PAPER, layers=20, batch_size=64, **BILLION),
        "Llama 18x2048, vocabulary 32,000, teacher 12x1280, 8 x 1024 tokens": replace(
            PAPER, kind="causal", layers=18, vocab_size=32_000, batch_size=8, length=1024, **BILLION
        ),
    },
}
ARMS = ("stock", "tutorial", "alone", "taught", "taught_low")


def measure(setting: Setting, rounds: int, peak_flops: float) -> dict[str, Any]:
    """Time, memory, MFU and kernels of all arms of a setting."""
    arms = Arms(setting)
    # Built before anything is measured: peaks are above the models.
    models = {"student": arms.student, "teacher": arms.teacher, "teacher in bfloat16": arms.low_teacher}
    runs = {name: getattr(arms, name) for name in ARMS}
    peaks = {}
    for name, run in runs.items():
        with PeakMemory("cuda") as peak:
            run()
        peaks[name] = peak.mebibytes
    seconds = in_turn(runs, rounds)
    rows = {name: summary(seconds[name], seconds["stock"]) | {"MiB": peaks[name]} for name in runs}
    for name in ("taught", "taught_low"):
        rows[name]["to alone"] = summary(seconds[name], seconds["alone"])["ratio"]
    for name in ("alone", "taught", "taught_low"):
        flops = setting.flops(with_teacher=name != "alone")
        rows[name]["MFU"] = flops / rows[name]["seconds"] / peak_flops
    sizes = {name: model.num_parameters() for name, model in models.items()}
    return {"arms": rows, "parameters": sizes, "kernels": kernels(arms)}


def kernels(arms: Arms) -> dict[str, float]:
    """Shares of the time of a few taught steps: by sort of kernel, and the rest, in which the GPU waits."""
    setting = arms.setting
    arms.setting = replace(setting, num_steps=5)
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        seconds = arms.taught_low()
    arms.setting = setting
    share: dict[str, float] = defaultdict(float)
    for event in profiler.key_averages():
        share[sort_of(event.key)] += event.self_device_time_total
    # The steps that are not counted run as long, but for the very first.
    total = sum(share.values())
    whole = 1e6 * sum(seconds) * (5 + 2) / len(seconds)
    shares = {name: value / max(whole, total) for name, value in sorted(share.items(), key=lambda item: -item[1])}
    return shares | {"GPU waits": max(0.0, 1 - total / whole)}


def sort_of(kernel: str) -> str:
    """What a kernel is for, by its name."""
    lower = kernel.lower()
    sorts = {
        "matrix products": ("gemm", "nvjet", "cutlass", "xmma"),
        "attention": ("flash", "fmha", "attention", "sdp"),
        "optimiser": ("multi_tensor", "adam"),
        "copies": ("memcpy", "memset"),
        "normalisation": ("layer_norm", "layernorm"),
        "softmax and sums": ("softmax", "reduce"),
        "other element by element": ("elementwise", "dropout", "index", "gather", "scatter", "cat"),
    }
    return next((name for name, parts in sorts.items() if any(part in lower for part in parts)), "other")


def main(arguments: list[str]) -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peak-tflops", type=float, default=989.0)
    parser.add_argument("--only", nargs="+", default=[*SETTINGS, "causal"])
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of step-cuda.json")
    options = parser.parse_args(arguments)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    for section in options.only:
        started = time.perf_counter()
        found: dict[str, Any] = {}
        for name in ["losses by vocabulary"] if section == "causal" else SETTINGS[section]:
            if section == "causal":
                result = causal(1, "cuda")
            else:
                result = measure(SETTINGS[section][name], options.rounds, 1e12 * options.peak_tflops)
            found[name] = result
            show(name, result)
            about = {"environment": environment("cuda"), "took": time.perf_counter() - started}
            print(about, flush=True)
            save("step-cuda", {section: found | about}, options.results)


if __name__ == "__main__":
    main(sys.argv[1:])
