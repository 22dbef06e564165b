"""Grow a tiny model of every masked and causal language model class of transformers, and judge the result.

    python -m benchmarks.growth_sweep [--jobs 2] [--only BertForMaskedLM ...] [--fresh]

The judge is independent of the library: it builds its own inputs and compares the logits itself. What was measured is
kept line by line in results/growth_sweep.jsonl, so that a sweep that was stopped goes on; results/growth_sweep.md holds
the tables.
"""

import argparse
import json
import logging
import multiprocessing
import re
import signal
import time
import warnings
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PretrainedConfig, PreTrainedModel
from transformers.models.auto import modeling_auto

from benchmarks.growth_table import sort_of, write_tables
from hf_dwt import from_weak_teacher
from hf_dwt.remapping.axes import probe_sizes
from hf_dwt.remapping.sizes import field_of, read_sizes
from hf_dwt.remapping.tiny import build_random, representative_layers, tiny_config
from hf_dwt.remapping.verify import name_of_cache

RESULTS = Path(__file__).parent / "results"
LINES = RESULTS / "growth_sweep.jsonl"
TOLERANCE = 1e-4  # standard deviations of the logits, float32; float64 decides where it is missed
SECONDS_PER_CLASS = 180
MASKED = modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
CAUSAL = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def class_names() -> list[str]:
    """All masked and causal language model classes that are registered, without duplicates."""
    values = [*MASKED.values(), *CAUSAL.values()]
    return sorted({name for value in values for name in ([value] if isinstance(value, str) else value)})


def tiny_teacher(name: str) -> PreTrainedModel:
    """A tiny model of a class: its default configuration, shrunk, with random weights."""
    model_class = getattr(transformers, name)
    config = model_class.config_class()
    if "vocab_size" in config.to_dict() and config.vocab_size is None:
        config.vocab_size = 33  # ESM leaves it to the tokenizer
    if name in CAUSAL.values() and name not in MASKED.values() and "is_decoder" in config.to_dict():
        config.is_decoder = True  # BERT and its kin look ahead otherwise
    layers = representative_layers(model_class, config)
    tiny = tiny_config(config, probe_sizes(read_sizes(config), 0, apart=False), layers)
    return build_random(model_class, tiny)


def growths(config: PretrainedConfig) -> dict[str, dict[str, int]]:
    """The growths that are tried, as overrides."""
    sizes = read_sizes(config)
    hidden, layers = field_of(config, "hidden"), field_of(config, "layers")
    wanted = {
        "width x2": {hidden: 2 * sizes["hidden"]},
        "width x1.5": {hidden: 3 * sizes["hidden"] // 2},
        "depth +2": {layers: sizes["layers"] + 2},
    }
    together = {**wanted["width x2"], **wanted["depth +2"]}
    if "intermediate" in sizes:
        units = field_of(config, "intermediate")
        wanted["units x1.25"] = {units: 5 * sizes["intermediate"] // 4}
        together[units] = 5 * sizes["intermediate"] // 2
    return {**wanted, "together": together}


def grown(teacher: PreTrainedModel, overrides: dict[str, int], method: str) -> dict[str, Any]:
    """Grow, and compare: how far off the student is, or why there is none."""
    started = time.perf_counter()
    try:
        student = from_weak_teacher(teacher, method=method, **overrides)
    except (ValueError, TypeError) as error:
        return {"refused": " ".join(str(error).split()), "seconds": time.perf_counter() - started}
    except Exception as error:
        raised = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return {"crashed": raised, "seconds": time.perf_counter() - started}
    took = time.perf_counter() - started
    try:
        off = max(differences(teacher, student))
    except Exception as error:
        return {"crashed": f"compared: {type(error).__name__}: {' '.join(str(error).split())}", "seconds": took}
    result: dict[str, Any] = {"method": method, "off": off, "seconds": took}
    if off > TOLERANCE:
        try:
            result["off in float64"] = max(differences(deepcopy(teacher).double(), student.double()))
        except Exception as error:  # A modelling file may have no float64; then what float32 says stands.
            result["no float64"] = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return result


@torch.no_grad()
def differences(teacher: PreTrainedModel, student: PreTrainedModel) -> Iterator[float]:
    """Largest difference of the logits in standard deviations: padded on either side, then read in two parts."""
    generator = torch.Generator().manual_seed(20_261_124)
    ids = torch.randint(3, teacher.get_input_embeddings().weight.shape[0] - 1, (4, 22), generator=generator)
    for padded in (slice(17, None), slice(0, 5)):
        mask = torch.ones_like(ids)
        mask[2, padded] = 0
        theirs, ours = (logits_of(model, input_ids=ids, attention_mask=mask) for model in (teacher, student))
        yield off_by(theirs[mask.bool()], ours[mask.bool()])
    theirs, ours = (in_two_parts(model, ids) for model in (teacher, student))
    if theirs is not None:
        yield off_by(theirs, ours if ours is not None else torch.full_like(theirs, torch.nan))


def logits_of(model: PreTrainedModel, **inputs: Any) -> torch.Tensor:
    """What a model says."""
    logits: torch.Tensor = model.eval()(**inputs, return_dict=True)["logits"]
    return logits.double()


def in_two_parts(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor | None:
    """Logits of the second half, the first half being read from the cache; None for a model that has no cache."""
    try:
        first = model(input_ids=ids[:, :13], use_cache=True, return_dict=True)
        name = name_of_cache(model)
        cache = first[name]
        second = model(input_ids=ids[:, 13:], use_cache=True, return_dict=True, **{name: cache})
    except Exception:  # Whatever a class without a cache says to one.
        return None
    return None if cache is None else second["logits"].double()


def off_by(theirs: torch.Tensor, ours: torch.Tensor) -> float:
    """Largest difference in standard deviations of the teacher's logits, infinite where something is not a number."""
    off = float((theirs - ours).abs().max() / theirs.std())
    return off if off == off else float("inf")


def swept(name: str) -> dict[str, Any]:
    """All growths of one class."""
    row: dict[str, Any] = {"class": name, "transformers": transformers.__version__, "torch": torch.__version__}
    try:
        teacher = tiny_teacher(name)
        row["sort"] = sort_of(teacher)
        spread = float(next(iter(logits_of(teacher, input_ids=torch.arange(3, 15)[None]))).std())
        if not 0 < spread < float("inf"):
            raise ValueError(f"the logits of the tiny model have a standard deviation of {spread}")
    except Exception as error:
        row["unbuilt"] = f"{type(error).__name__}: {' '.join(str(error).split())}"
        row["sort"] = row.get("sort") or sort_of(None, name)
        return row
    row["growths"] = {}
    try:
        wanted = growths(teacher.config)
    except Exception as error:
        return {**row, "unjudged": f"{type(error).__name__}: {' '.join(str(error).split())}"}
    for kind, overrides in wanted.items():
        row["growths"][kind] = grown(teacher, overrides, "exact")
        if kind == "width x1.5" and "refused" in row["growths"][kind]:
            row["growths"]["width x1.5, near"] = grown(teacher, overrides, "near")
    return row


def _quietly(name: str) -> dict[str, Any]:
    """Run one class under its time limit; called in a process of its own."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    signal.alarm(SECONDS_PER_CLASS)  # unhandled, it ends the process
    started = time.perf_counter()
    return {**swept(name), "seconds": time.perf_counter() - started}


def _in_own_process(name: str, connection: Any) -> None:
    connection.send(_quietly(name))


def run(names: list[str], jobs: int) -> Iterator[dict[str, Any]]:
    """Sweep classes, each in a process of its own: one that hangs or dies stops no other."""
    fork = multiprocessing.get_context("fork")
    running: dict[str, Any] = {}
    waiting = list(reversed(names))
    while waiting or running:
        while waiting and len(running) < jobs:
            name = waiting.pop()
            theirs, ours = fork.Pipe()
            process = fork.Process(target=_in_own_process, args=(name, ours))
            process.start()
            ours.close()
            running[name] = (process, theirs)
        ready = multiprocessing.connection.wait([pipe for _, pipe in running.values()])
        for name, (process, pipe) in list(running.items()):
            if pipe not in ready:
                continue
            try:
                yield pipe.recv()
            except EOFError:
                process.join()
                reason = f"its process ended with {process.exitcode} (limit: {SECONDS_PER_CLASS} s)"
                yield {"class": name, "sort": sort_of(None, name), "unjudged": reason}
            process.join()
            del running[name]


def main() -> None:
    """Run what is missing and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1, help="processes, of one thread each")
    parser.add_argument("--only", nargs="+", metavar="CLASS", help="classes; printed, not kept")
    parser.add_argument("--fresh", action="store_true", help="forget what was measured before")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    if arguments.only:
        for row in run(arguments.only, arguments.jobs):
            print(json.dumps(row, indent=1))
        return
    if arguments.fresh:
        LINES.unlink(missing_ok=True)
    known = [json.loads(line) for line in LINES.read_text().splitlines()] if LINES.exists() else []
    done = {row["class"] for row in known}
    with LINES.open("a") as lines:
        for row in run([name for name in class_names() if name not in done], arguments.jobs):
            lines.write(json.dumps(row) + "\n")
            lines.flush()
            print(
                row["class"],
                re.sub(r"\s+", " ", str(row.get("unbuilt", row.get("unjudged", ""))))[:80],
                f"{row.get('seconds', 0):.1f} s",
            )
    print(write_tables(LINES, RESULTS))


if __name__ == "__main__":
    main()
