"""What the site shows of the repository itself: files, help texts, settings and curves, taken when it is built.

A page asks for it by a comment that stands alone on its line:

    <!-- include: trainer_configs/README.md | Memory -->   a file, or some of its sections
    <!-- help: train -->                                   what `hf-dwt train --help` prints at 80 columns;
                                                           `hf-dwt --help` without a command
    <!-- settings -->                                      the arguments that distillation adds
    <!-- study: Weighting -->                              what the study's report says under such a heading

and for a figure of `benchmarks/results` in the midst of its text, by file (JSON, or counts in a Markdown table) and
keys (`arms` may be left out; `range` is from the lowest to the highest of an arm's rounds). With * in file or keys
there are several, of which the word in front makes one, as it does of their differences:

    {{ growth.json/large/grown and verified/ratio }}
    {{ growth_sweep.md/dense and built tiny }}
    {{ largest: cache-error.json/*/*, k = 16/soft, % }}
    {{ mean: demo/speeches-seed*-alone-equal-steps.json/loss minus demo/speeches-seed*-student.json/loss }}
"""

import json
import os
import posixpath
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from fnmatch import fnmatchcase
from io import StringIO
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
_RESULTS = "benchmarks/results"
STUDY = f"{_RESULTS}/study.md"
NOT_RUN = f"""!!! note "Not run yet"

    `python -m benchmarks.study` measures it and writes `{STUDY}`, which is shown here once it is there."""

# Where files of the repository lie on the site, so that evidence and configurations can be opened.
_PUBLISHED = "files"
_PATTERNS = ("benchmarks/results/**/*.*", "trainer_configs/*/*.*")
_DIRECTIVE = re.compile(r"^<!-- (include|help|settings|study)(?:: (.+?))? -->$", re.MULTILINE)
_FIGURE = re.compile(r"\{\{ (.+?) \}\}")
_SUMMARIES: dict[str, Callable[[list[float]], float]] = {
    "mean": statistics.mean,
    "deviation": statistics.stdev,
    "largest": lambda found: max(map(abs, found)),
    "smallest": lambda found: min(map(abs, found)),
    "points": lambda found: 100 * statistics.mean(found),
}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files and the curves to the site."""
    for path in published(ROOT):
        files.append(File.generated(config, f"{_PUBLISHED}/{path}", abs_src_path=str(ROOT / path)))
    files.append(File.generated(config, "img/policies.svg", content=policies_as_svg()))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Put what was asked for in its place."""
    return filled_in(markdown, page.file.src_uri)


def filled_in(markdown: str, page: str, root: Path = ROOT) -> str:
    """A page's text with what its comments ask for.

    Args:
        markdown: With comments.
        page: Path of the page within `docs`.
        root: Of the repository.
    """
    writers: dict[str, Callable[[str], str]] = {
        "include": lambda asked: included(*_split(asked), page, root),
        "help": help_text,
        "settings": lambda _: settings_table(),
        "study": lambda asked: of_the_study(asked, page, root),
    }
    text = _FIGURE.sub(lambda found: figure(found[1], root), markdown)
    return _DIRECTIVE.sub(lambda found: writers[found[1]](found[2] or ""), text)


def figure(asked: str, root: Path = ROOT) -> str:
    """A figure of the raw results: losses to three digits, percentages to one, everything else, means too, to two.

    Raises:
        KeyError: If there is none of that path.
    """
    word, path = re.fullmatch(r"(?:(\w+): )?(.+)", asked).groups()
    name = path.rpartition("/")[2]
    if name == "range":
        arm = path.removesuffix("range")
        return f"{figure(f'{arm}lowest', root)} to {figure(f'{arm}highest', root)}"
    taken, *less = (_found(each, root) for each in path.split(" minus "))
    found = [first - second for first, second in zip(taken, *less, strict=True)] if less else taken
    if not word:
        (value,) = found
        if isinstance(value, int):
            return str(value)
        digits = 3 if name.endswith("loss") else 2
    else:
        value, digits = _SUMMARIES[word](found), 2
    return f"{value:.{1 if name.endswith('%') or word == 'points' else digits}f}"


def _found(path: str, root: Path) -> list[Any]:
    """What lies at a path, once for each file and key that its stars stand for, in their order."""
    parts = path.split("/")
    depth = 1 + next(index for index, part in enumerate(parts) if part.endswith((".json", ".md")))
    files = sorted((root / _RESULTS).glob("/".join(parts[:depth])))
    found = [_content(file) for file in files]
    for key in parts[depth:]:
        found = [inner for outer in found for inner in _below(outer, key)]
    if not found:
        raise KeyError(path)
    return found


def _content(file: Path) -> dict[str, Any]:
    """Of a JSON file, or the counts of a Markdown file's tables of two columns, by their first column."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".json":
        return dict(json.loads(text))
    return {name: int(count) for name, count in re.findall(r"^\| ([^|]+) \| (\d+) \|$", text, flags=re.MULTILINE)}


def _below(content: dict[str, Any], key: str) -> list[Any]:
    if key in content:
        return [content[key]]
    arms = content.get("arms", {})
    if "*" in key:
        # A key that is not everywhere, such as a section of other arms, is passed over.
        return [value for name, value in (arms or content).items() if fnmatchcase(name, key)]
    return [arms[key]] if key in arms else []


def published(root: Path) -> list[str]:
    """Files of the repository that have a place on the site, by their paths there."""
    found = {path.relative_to(root).as_posix() for pattern in _PATTERNS for path in root.glob(pattern)}
    return sorted(found - {STUDY})


def included(path: str, headings: Sequence[str], page: str, root: Path = ROOT) -> str:
    """A file of the repository, or some of its sections in its own order, its links made to fit the page.

    Raises:
        ValueError: If it has no section of such a heading.
    """
    text = (root / path).read_text(encoding="utf-8")
    if headings:
        sections = re.split(r"^(?=## )", text, flags=re.MULTILINE)
        known = {section.partition("\n")[0].removeprefix("## "): section for section in sections[1:]}
        missing = [heading for heading in headings if heading not in known]
        if missing:
            raise ValueError(f"{path} has no section {missing[0]!r}, only {', '.join(known)}.")
        text = "\n".join(section for heading, section in known.items() if heading in headings)
    else:
        # The page has a title of its own.
        text = re.sub(r"\A# .*\n", "", text)
    return _LINK.sub(lambda link: _moved(link, posixpath.dirname(path), page, root), text).strip()


def _moved(link: re.Match[str], folder: str, page: str, root: Path) -> str:
    picture, text, target = link.groups()
    if re.match(r"[a-z]+:|#", target):
        return link[0]
    path, hash_mark, anchor = posixpath.normpath(posixpath.join(folder, target)).partition("#")
    if path not in published(root):
        return text
    place = posixpath.relpath(f"{_PUBLISHED}/{path}", posixpath.dirname(page) or ".")
    return f"{picture}[{text}]({place}{hash_mark}{anchor})"


def help_text(command: str) -> str:
    """What the command line prints of a command, of itself for an empty name."""
    asked = [sys.executable, "-m", "hf_dwt.cli", *command.split(), "--help"]
    plain = {"COLUMNS": "80", "NO_COLOR": "1", "PYTHONPATH": str(ROOT)}
    shown = subprocess.run(asked, env=os.environ | plain, capture_output=True, text=True, check=True, cwd=ROOT)
    return f"```text\n{shown.stdout.strip()}\n```"


def settings_table() -> str:
    """The arguments that distillation adds to those of `Trainer`, with their defaults."""
    from hf_dwt.arguments import DistillationArguments

    rows = [(f"`{each.name}`", f"`{each.default!r}`", each.metadata["help"]) for each in fields(DistillationArguments)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [("argument", "default", "meaning"), ("---",) * 3, *rows])


def of_the_study(heading: str, page: str, root: Path = ROOT) -> str:
    """The sections of the study's report whose headings hold a word, or all of it; that it is not run, where it is not.

    A report without such a section is pointed at.
    """
    if not (root / STUDY).is_file():
        return NOT_RUN
    if not heading:
        return included(STUDY, (), page, root)
    titles = re.findall(r"^## (.+)$", (root / STUDY).read_text(encoding="utf-8"), flags=re.MULTILINE)
    wanted = [title for title in titles if heading.lower() in title.lower()]
    place = posixpath.relpath("study.md", posixpath.dirname(page) or ".")
    whole = f"The whole report is [on a page of its own]({place})."
    if not wanted:
        return whole
    # One level lower: they stand within a section here.
    return re.sub(r"^#", "##", included(STUDY, wanted, page, root), flags=re.MULTILINE) + f"\n\n{whole}"


def _split(asked: str) -> tuple[str, list[str]]:
    path, *headings = (part.strip() for part in asked.split("|"))
    return path, headings


def policies_as_svg() -> str:
    """The weights of every built-in policy with its defaults; lines differ by their dashes, not by colour alone."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    from hf_dwt.signals import Signals
    from hf_dwt.weighting import make_policy

    names = ("constant", "linear", "cosine", "exponential", "step", "wsd", "inheritance")
    done = [index / 200 for index in range(201)]
    figure, places = pyplot.subplots(2, 4, figsize=(8, 4.6), layout="constrained")
    for name, axes in zip(names, places.flat, strict=False):
        weights = [make_policy(name)(Signals(round(1000 * each), each)) for each in done]
        axes.plot(done, [each.soft for each in weights], color="black", label="soft loss")
        axes.plot(done, [each.hard for each in weights], color="0.45", linestyle="--", label="hard loss")
        axes.set(title=name, ylim=(-0.15, 4.4), xlabel="progress", xticks=(0, 0.5, 1))
    places[0, 0].set_ylabel("weight")
    places[1, 0].set_ylabel("weight")
    places[0, 0].legend(frameon=False)
    gaps = [1.1 - each * 1.2 for each in done]
    policy = make_policy("handover")
    answers = [policy(Signals(1, 0.0, gap=gap, reference_gap=1.0, previous_soft_loss_weight=1.0)) for gap in gaps]
    last = places[1, 3]
    last.plot(gaps, [each.soft for each in answers], color="black")
    last.plot(gaps, [each.hard for each in answers], color="0.45", linestyle="--")
    last.set(title="handover", ylim=(-0.15, 4.4), xlabel="gap, nats (1 at first)")
    last.invert_xaxis()
    drawn = StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "hf_dwt"}):
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    return drawn.getvalue()
