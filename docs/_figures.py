"""The figures that pages quote from `benchmarks/results`, and the one that they show; to bring them up to date:

    python docs/_figures.py


A page has the figure itself, so that it can be read anywhere, and behind it a comment that says where it comes from:

    The student ended at 0.537<!-- study.json/weighting/inheritance/loss --> nats.

First the file (JSON, or counts in a Markdown table of two columns), then the keys; `arms` may be left out, and `range`
is from the lowest to the highest of an arm's rounds. With * in file or keys there are several figures, of which the
word in front makes one, as it does of their differences:

    growth.json/large/grown and verified/ratio
    growth_sweep.md/dense and built tiny
    largest: cache-error.json/*/*, k = 16/soft, %
    mean: demo/speeches-seed*-alone-equal-steps.json/loss minus demo/speeches-seed*-student.json/loss
"""

import json
import re
import statistics
from collections.abc import Callable
from fnmatch import fnmatchcase
from io import StringIO
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = "benchmarks/results"
POLICIES = "docs/img/policies.svg"
_NUMBER = r"-?\d+(?:\.\d+)?"
_QUOTED = re.compile(rf"({_NUMBER} to {_NUMBER}(?=<!-- [^>]+/range -->)|{_NUMBER})<!-- (.+?) -->")
_SUMMARIES: dict[str, Callable[[list[float]], float]] = {
    "mean": statistics.mean,
    "deviation": statistics.stdev,
    "largest": lambda found: max(map(abs, found)),
    "smallest": lambda found: min(map(abs, found)),
    "points": lambda found: 100 * statistics.mean(found),
}


def main() -> None:
    """Bring all figures up to date, and name the pages that changed."""
    for page in sorted((ROOT / "docs").rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        current = up_to_date(text)
        if current != text:
            page.write_text(current, encoding="utf-8")
            print(page.relative_to(ROOT))
    (ROOT / POLICIES).write_text(policies_as_svg(), encoding="utf-8")


def up_to_date(markdown: str, root: Path = ROOT) -> str:
    """A page whose figures are those of the results."""
    return _QUOTED.sub(lambda found: f"{figure(found[2], root)}<!-- {found[2]} -->", markdown)


def without_sources(markdown: str) -> str:
    """A page with its figures, and without where they come from."""
    return _QUOTED.sub(lambda found: found[1], markdown)


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
    files = sorted((root / RESULTS).glob("/".join(parts[:depth])))
    found = [content(file) for file in files]
    for key in parts[depth:]:
        found = [inner for outer in found for inner in _below(outer, key)]
    if not found:
        raise KeyError(path)
    return found


def content(file: Path) -> dict[str, Any]:
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


if __name__ == "__main__":
    main()
