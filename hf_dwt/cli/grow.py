"""`hf-dwt grow`."""

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers.utils import logging

from hf_dwt.cli.folders import require_writable
from hf_dwt.cli.options import parse_options
from hf_dwt.cli.recipe import reading
from hf_dwt.factory import from_weak_teacher, plan_growth
from hf_dwt.hub.access import resolve_commit
from hf_dwt.model_files import load_tokenizer, looks_local
from hf_dwt.remapping.plan import GrowthPlan
from hf_dwt.remapping.report import RemappingReport
from hf_dwt.sections import RecipeError


def grow(
    teacher: str,
    options: Sequence[str] = (),
    *,
    method: str,
    depth_method: str | None,
    width_method: str | None,
    noise: float,
    seed: int,
    dtype: str | None,
    revision: str | None,
    verify: str,
    output: str | None,
    dry_run: bool,
) -> dict[str, Any]:
    """Grow a student, save it with its plan and tokenizer, and print plan and report.

    Args:
        teacher: Folder or Hub id.
        options: `--name value` for fields of the student's configuration.
        method: See `from_weak_teacher`, as the others.
        depth_method: Its own.
        width_method: Its own.
        noise: Between copies.
        seed: Of everything random.
        dtype: Of the student.
        revision: Of the teacher.
        verify: 'yes', 'full' or 'no'.
        output: Folder for the student.
        dry_run: Print the plan; read configurations only.

    Returns:
        `sizes`, the rows of the plan's table; `plan`, as `growth_plan.json` has it; `report`, the fields of
        `RemappingReport`, and `output`, the folder, both None for a dry run.

    Raises:
        RecipeError: If there is no folder to write to, or it is not empty.
        ValueError: If the student cannot be grown so.
    """
    console = Console()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    overrides = dict(parse_options(options))
    if not looks_local(teacher):
        # Configuration, weights and tokenizer are of one commit, whatever becomes of the branch meanwhile.
        revision = resolve_commit(teacher, revision, None)
    methods = {"method": method, "depth_method": depth_method, "width_method": width_method}
    choices: dict[str, Any] = {**methods, "noise": noise, "seed": seed, "revision": revision}
    if dry_run:
        with reading("student"):
            plan = plan_growth(teacher, **choices, **overrides)
        console.print(str(plan), markup=False, highlight=False)
        return _content(plan)
    if output is None:
        raise RecipeError("Say where the student goes: `--output FOLDER` (or `--dry-run`).")
    folder = Path(output)
    require_writable(folder, "--output")
    if folder.exists() and any(folder.iterdir()):
        raise RecipeError(f"{output} is not empty: name another folder.")
    with reading("student"):
        student, report = from_weak_teacher(
            teacher,
            dtype=dtype,
            verify="full" if verify == "full" else verify == "yes",
            output_report=True,
            **choices,
            **overrides,
        )
    student.save_pretrained(folder)
    report.plan.save(folder)
    tokenizer = load_tokenizer(
        os.path.expanduser(teacher), {"revision": revision or "main", "trust_remote_code": False}
    )
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    for text in (report.plan, report):
        console.print(str(text), markup=False, highlight=False, soft_wrap=True)
    console.print(f"The student is in {folder}.", markup=False)
    return _content(report.plan, report, output)


def _content(plan: GrowthPlan, report: RemappingReport | None = None, output: str | None = None) -> dict[str, Any]:
    told = None if report is None else {name: each for name, each in asdict(report).items() if name != "plan"}
    return {"sizes": plan.sizes(), "plan": asdict(plan), "report": told, "output": output}
