"""The study's report, computed from its lines: Markdown with figures beside it, and one HTML page with all inside."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.study import words
from benchmarks.study.cells import TEACHERS, TUNING
from benchmarks.study.config import Part
from benchmarks.study.contrasts import SAME_COST
from benchmarks.study.crossing import SHARES
from benchmarks.study.document import FIGURES, Block, Figure, Heading, Items, Paragraph, Table, as_html, as_markdown
from benchmarks.study.findings import findings
from benchmarks.study.headline import headlines_of, parts_of_headlines
from benchmarks.study.lines import Line, StepTime, as_planned, read_lines, read_times
from benchmarks.study.missing import missing_cells
from benchmarks.study.repeated import repeated
from benchmarks.study.sections import answers, learning_rates, places
from benchmarks.study.statistics import LEVEL
from benchmarks.study.summary import summary_of
from benchmarks.study.time_to_target import anchors, headline_blocks
from benchmarks.study.weakness import Standing, standings

TITLE = "The study: teacher, weighting and start, measured over seeds"
COMMAND = "python -m benchmarks.study"
_MOST_MISSING = 20


def write(
    results: str | Path,
    parts: Sequence[Part],
    out: str | Path,
    *,
    planned: Sequence[Mapping[str, Any]] = (),
    command: str = COMMAND,
    committed: str | Path | None = None,
) -> tuple[Path, Path, Path]:
    """Write `study.md`, figures, `study.html`, and `study.json` for documents that quote it. Same lines, same bytes.

    Args:
        results: Folder of the lines.
        parts: Of the study.
        out: Folder to write to.
        planned: The `cell` of every line that there should be: marks those that are missing, and tells which runs parts
            have in common. Default: every arm is expected with every seed of its part.
        command: That runs the study, as the report names it.
        committed: Folder of other lines, of which these are repetitions to be compared with them; None if they are not.

    Returns:
        The three files.

    Raises:
        ImportError: If matplotlib is missing; `pip install 'hf_dwt[plots,eval]'` brings it, and scipy.
    """
    out = Path(out)
    lines, times = read_lines(Path(results)), read_times(Path(results))
    theirs = None if committed is None else read_lines(Path(committed))
    blocks = report(lines, times, parts, planned=planned, command=command, committed=theirs)
    figures = out / FIGURES
    figures.mkdir(parents=True, exist_ok=True)
    for stale in figures.glob("*.svg"):
        stale.unlink()
    for block in blocks:
        if isinstance(block, Figure):
            (figures / f"{block.name}.svg").write_text(block.svg + "\n")
    markdown, page = out / "study.md", out / "study.html"
    markdown.write_text(as_markdown(blocks))
    page.write_text(as_html(TITLE, blocks))
    summary = out / "study.json"
    summary.write_text(json.dumps(_summary(lines, times, parts, planned), indent=1) + "\n")
    return markdown, page, summary


def _summary(
    lines: Sequence[Line], times: Sequence[StepTime], parts: Sequence[Part], planned: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    placed = as_planned(lines, planned)
    targets = sorted(parts_of_headlines(placed, planned))
    headlines = [each for part in targets for each in headlines_of(part, placed, times)]
    answered = [part.name for part in parts if part.name not in (TEACHERS, TUNING, *targets)]
    return summary_of(placed, answered, standings(placed), headlines)


def report(
    lines: Sequence[Line],
    times: Sequence[StepTime],
    parts: Sequence[Part],
    *,
    planned: Sequence[Mapping[str, Any]] = (),
    command: str = COMMAND,
    committed: Sequence[Line] | None = None,
) -> list[Block]:
    """Put the report together.

    Args:
        lines: Of all parts.
        times: Of steps, measured alone.
        parts: In the order of their sections.
        planned: See `write`.
        command: Likewise.
        committed: Lines of them.
    """
    runs, lines = lines, as_planned(lines, planned)
    placed, of_headline = standings(lines), parts_of_headlines(lines, planned)
    targets, others = ([part for part in parts if (part.name in of_headline) == each] for each in (True, False))
    missing = {part.name: missing_cells(part, lines, planned) for part in parts}
    blocks: list[Block] = [Heading(1, TITLE), *_opening(command), Heading(2, "In short")]
    compared = [part for part in others if part.name not in (TEACHERS, TUNING)]
    blocks += [*findings(compared, lines), Heading(2, "Rules of fairness"), *_rules(lines)]
    if committed is not None:
        blocks += [Heading(2, "Beside the committed results"), *repeated(lines, committed)]
    blocks += [Heading(2, "Headline: time to target"), *_headline(lines, times, placed, targets, missing, command)]
    blocks += [Heading(2, "Where the teachers stand"), *places(placed, lines), _made_by([TEACHERS], command)]
    for question, group in _by_question(others).items():
        blocks.append(Heading(2, question))
        for part in group:
            blocks += [Heading(3, f"Part {part.name}"), *answers(part.name, lines, placed)]
            blocks += [*_missing_note(missing[part.name]), _made_by([part.name], command)]
    blocks += [Heading(2, "Learning rates"), *learning_rates(lines)]
    blocks += [*_missing_note(missing.get(TUNING, ())), _made_by([TUNING], command)]
    blocks += [Heading(2, "How the numbers are made"), Items(_METHODS)]
    return [*blocks, Heading(2, "What was run"), *_inventory(runs, lines, parts, missing)]


_METHODS = (
    "Losses are final held-out hard losses on the whole test set, nats per position.",
    "Differences are paired: runs of the same seed, hence of the same initialisation, order of data and masks. Seeds "
    "that only one of the two has are left out, and named. The interval is Student's t, two-sided, 95 %; ratios are "
    "geometric means, their intervals those of the logarithms.",
    "p values are adjusted by Holm's procedure within a factor of a part. 'helps' and 'hurts' are said where the "
    f"interval leaves 0 out; 'not after Holm' where the adjusted p is not below {LEVEL}.",
    "Equal cost: a comparison is made only where a stand-alone run was annealed to the arm's operations, off by at "
    f"most {SAME_COST:.0%}; nothing is interpolated between budgets there. Else the ratio of costs at equal steps is "
    "told.",
    f"Time to target: the smallest of {', '.join(f'{share:g}' for share in SHARES)} of the stand-alone budget whose "
    "own annealed run ends at or below the target, interpolated in log loss towards the next smaller one. If the "
    "smallest of them qualifies, 'at most' is said. The median over seeds counts a seed that never gets there as "
    "infinite.",
)


def _opening(command: str) -> list[Block]:
    return [
        Paragraph(
            "What a weaker teacher, the weight of its soft loss, and a start grown from a smaller model bring to a "
            "language model: at equal steps and, where the student alone was run to the same cost, at equal cost. "
            "Each table says over how many seeds; one seed has no interval."
        ),
        Paragraph(
            f"Made by `{command} --report` from the lines that `{command}` wrote, and from nothing else. A cell that "
            f"has its line is not run again; `{command} --output FOLDER` runs all of them anew. Either needs `pip "
            "install -e '.[eval,plots]'`."
        ),
    ]


def _rules(lines: Sequence[Line]) -> list[Block]:
    """The rules, and how far the lines keep them."""
    dropouts = sorted({line.choices.dropout for line in lines})
    runs = {line.key: line for line in lines}.values()
    with_dropout = [line for line in runs if line.choices.dropout]
    clipped: dict[str, list[float]] = {}
    for line in lines:
        if line.clipped is not None:
            clipped.setdefault(line.choices.inputs, []).append(line.clipped)
    uncounted = sum(line.clipped is None for line in lines)
    rules = [
        "All arms are trained by `DWTTrainer`, the student alone too (without a teacher).",
        "The learning rate is chosen per family (start, with or without teacher) from the same grid, the student alone "
        "included, by one seed. It holds for all weights of the soft loss, by one of which it was tuned: see the "
        "tuning table.",
        f"Dropout is 0, but for a sensitivity cell. Seen here: {words.rates(dropouts) or 'nothing'} "
        f"({len(with_dropout)} of {len(runs)} runs have some).",
        "Gradients are clipped in all arms on some data or in none. The highest share of clipped steps of a run: "
        f"{', '.join(f'{name} {words.percent(max(clipped[name]))}' for name in sorted(clipped)) or 'not counted'}; "
        f"runs with clipping whose share nobody counted: {uncounted}.",
        "The schedules of weight and learning rate both end at the arm's own budget.",
        "Within a pair data order, masks and initialisation seed are the same.",
        "Seeds that tuned or screened are not those that confirm." + _shared_seeds(lines),
    ]
    return [Items(rules)]


def _shared_seeds(lines: Sequence[Line]) -> str:
    """Say whether seeds that tuned were used elsewhere, or those of the screening to confirm."""
    tuning = {line.seed for line in lines if line.part == TUNING}
    rest = [line for line in lines if line.part not in (TUNING, TEACHERS)]
    confirming = {line.seed for line in rest if line.confirms}
    screening = {line.seed for line in rest if not line.confirms}
    broken = ((tuning & (confirming | screening), "tuned"), (confirming & screening, "screened"))
    told = [f"broken by seed {words.seeds(shared)}, which {what} too" for shared, what in broken if shared]
    return f" Here {' and '.join(told) or 'no seed that tuned is used elsewhere, and none that screened confirms'}."


def _headline(
    lines: Sequence[Line],
    times: Sequence[StepTime],
    placed: Sequence[Standing],
    parts: Sequence[Part],
    missing: Mapping[str, Sequence[str]],
    command: str,
) -> list[Block]:
    blocks: list[Block] = []
    for part in parts:
        found = headlines_of(part.name, lines, times)
        blocks += [Heading(3, f"Part {part.name}"), *([Paragraph(part.question)] if part.question else [])]
        if not found:
            blocks.append(Paragraph("No stand-alone run over the whole budget was made yet: there is no target."))
        for headline in found:
            blocks += headline_blocks(headline, lines, placed)
        blocks += [*_missing_note(missing[part.name]), _made_by([part.name], command)]
    if not parts:
        blocks.append(Paragraph("No part asks for several budgets."))
    return [*blocks, anchors()]


def _by_question(parts: Sequence[Part]) -> dict[str, list[Part]]:
    """Parts under their questions; teachers and tuning have sections of their own."""
    groups: dict[str, list[Part]] = {}
    for part in parts:
        if part.name not in (TEACHERS, TUNING):
            groups.setdefault(part.question or part.name, []).append(part)
    return groups


def _missing_note(missing: Sequence[str]) -> list[Block]:
    if not missing:
        return []
    more = f" and {len(missing) - _MOST_MISSING} more" if len(missing) > _MOST_MISSING else ""
    named = ", ".join(f"`{each}`" for each in missing[:_MOST_MISSING])
    return [Paragraph(f"**Missing cells**, {len(missing)}: {named}{more}.")]


def _made_by(parts: Sequence[str], command: str) -> Paragraph:
    return Paragraph(f"Command: `{command} --only {' '.join(parts)}`, then `{command} --report`.")


def _inventory(
    runs: Sequence[Line], lines: Sequence[Line], parts: Sequence[Part], missing: Mapping[str, Sequence[str]]
) -> list[Block]:
    rows = []
    names = [part.name for part in parts]
    for name in [*names, *sorted({line.part for line in lines} - set(names))]:
        own = [line for line in lines if line.part == name]
        new = [line for line in runs if line.part == name]
        num_shared = len({line.id for line in own} - {line.id for line in new})
        row = [name, str(len(own)), str(num_shared), str(len(missing.get(name, ())))]
        rows.append([*row, f"{_hours(new):.2f}", words.seeds({line.seed for line in own}) or "none"])
    commits = sorted({line.commit for line in runs})
    machines = sorted({line.machine for line in runs})
    return [
        Table("Cells", ("part", "runs", "shared with others", "missing", "core-hours of its own", "seeds"), rows),
        Paragraph(f"Together {len(runs)} runs, those of the teachers included: {_hours(runs):.2f} core-hours."),
        Paragraph(f"Commits: {', '.join(f'`{each}`' for each in commits) or 'none'}."),
        Paragraph(f"Machines: {'; '.join(machines) or 'none'}."),
    ]


def _hours(lines: Sequence[Line]) -> float:
    """Core-hours."""
    return sum(line.seconds * line.cores for line in lines) / 3600
