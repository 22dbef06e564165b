"""The study's figures as SVG: readable in grey, by markers, line styles and labels at the lines themselves."""

import io
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any
from xml.etree import ElementTree

from benchmarks.study.contrasts import Contrast
from benchmarks.study.crossing import SHARES
from benchmarks.study.headline import Headline
from benchmarks.study.lines import Line
from benchmarks.study.statistics import verdict
from benchmarks.study.weakness import FIRST_PART, Standing

MOST_RECIPES = 8
_WIDTH = 6.0
# Of the height of a figure's axes.
_LABEL_HEIGHT = 0.052
# The first steps' losses would leave little room for the rest.
_FIRST_SHOWN = 0.05
_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
# Okabe and Ito's colours, dark to light: they also differ in grey.
_STYLES = (
    ("#000000", "-", "o"), ("#0072b2", "--", "s"), ("#d55e00", "-.", "^"), ("#009e73", ":", "D"),
    ("#cc79a7", "-", "v"), ("#e69f00", "--", "P"), ("#56b4e9", "-.", "X"), ("#5f5f5f", ":", "*"),
)  # fmt: skip
_VERDICTS = {"helps": ("#0072b2", "o", "#0072b2"), "hurts": ("#d55e00", "X", "#d55e00")}
_NOTHING_SHOWN = ("#5f5f5f", "o", "#ffffff")


def draw_curves(alone: Sequence[Line], taught: Mapping[str, Sequence[Line]], standings: Sequence[Standing]) -> Any:
    """Draw the student alone over its steps, its teachers' levels, and the student with each of them.

    Args:
        alone: The runs of the student alone, one a seed.
        taught: Runs of the student with each teacher, by the teacher's name.
        standings: Of the teachers.
    """
    figure, axes = _figure(4.2)
    steps, budget = _mean_curve(alone), alone[0].choices.steps
    axes.axvspan(0, FIRST_PART * budget, color="#f0f0f0", zorder=0)
    axes.annotate("first half", (0.01, 0.01), xycoords="axes fraction", fontsize=8, color="#444444")
    labels = [("alone", steps[-1][1], "black")] if steps else []
    axes.plot(*_columns(steps), color="black", linestyle="-", linewidth=2)
    for standing, (colour, line, marker) in zip(standings, _STYLES[1:], strict=False):
        name, level = standing.teacher.name, standing.level
        axes.axhline(level, color=colour, linestyle=line, linewidth=1)
        labels.append((f"{name} itself", level, colour))
        if curve := _mean_curve(taught.get(name, ())):
            axes.plot(*_columns(curve), color=colour, linestyle=line, marker=marker, markersize=4, linewidth=1.5)
            labels.append((f"with {name}", curve[-1][1], colour))
    axes.set_yscale("log")
    later = [loss for step, loss in steps if step >= _FIRST_SHOWN * budget]
    axes.set_ylim(top=1.1 * max(later + [value for _, value, _ in labels]))
    axes.set_xlim(0, budget)
    _plain_ticks(axes)
    axes.set_xlabel("optimiser steps")
    axes.set_ylabel("held-out loss (nats per position)")
    _label_at_right(axes, labels)
    return figure


def draw_quality(points: Sequence[tuple[str, float, Contrast]], label: str) -> Any:
    """Draw the loss difference that each teacher brings over its quality.

    Args:
        points: The teacher's name, its place on the horizontal axis, and its comparison with the student alone.
        label: Of the horizontal axis.
    """
    figure, axes = _figure(3.8)
    axes.axhline(0, color="black", linewidth=1)
    for name, place, contrast in points:
        if contrast.paired is None:
            continue
        _draw_difference(axes, contrast, place, along="y")
        axes.annotate(
            name, (place, contrast.paired.difference.mean), xytext=(6, 4), textcoords="offset points", fontsize=8
        )
    axes.margins(x=0.15)
    axes.set_xlabel(label)
    axes.set_ylabel("loss with the teacher less loss\nalone (nats; above 0 it hurts)")
    return figure


def draw_contrasts(contrasts: Sequence[Contrast]) -> Any:
    """Draw differences of losses with their intervals, one row each."""
    known = [each for each in contrasts if each.paired is not None]
    figure, axes = _figure(1.0 + 0.42 * len(known))
    axes.axvline(0, color="black", linewidth=1)
    for row, contrast in enumerate(known):
        _draw_difference(axes, contrast, -row, along="x")
        axes.annotate(
            f"{contrast.arm}, against {contrast.against}", (0.01, -row + 0.26),
            xycoords=("axes fraction", "data"), va="bottom", fontsize=8,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )  # fmt: skip
    axes.set_ylim(-len(known) + 0.4, 0.9)
    axes.set_yticks([])
    axes.set_xlabel("difference of held-out loss (nats; below 0 is better)")
    return figure


def draw_headline(headline: Headline) -> Any:
    """Draw the final loss of runs annealed to each share of the budget, and the target."""
    figure, axes = _figure(4.0)
    axes.axhline(headline.target, color="black", linestyle="--", linewidth=1)
    labels = [("target", headline.target, "black")]
    for recipe, (colour, line, marker) in zip(headline.recipes[:MOST_RECIPES], _STYLES, strict=False):
        points = [(share, fmean(each.loss for each in recipe.runs[share].values())) for share in sorted(recipe.runs)]
        axes.plot(*_columns(points), color=colour, linestyle=line, marker=marker)
        labels.append((recipe.name, points[-1][1], colour))
    axes.set_yscale("log")
    axes.set_xlim(0, 1.02)
    axes.set_xticks(SHARES)
    axes.tick_params(axis="x", labelsize=8)
    _plain_ticks(axes)
    axes.set_xlabel("share of the stand-alone student's steps; every point a run annealed to it")
    axes.set_ylabel("final held-out loss (nats)")
    _label_at_right(axes, labels)
    return figure


def as_svg(figure: Any, name: str, alt: str) -> str:
    """Render a figure as SVG for use inside of HTML: same input, same bytes; no outside address but the namespaces.

    Args:
        figure: From one of the functions above.
        name: Put before every id, so that figures on one page do not mix.
        alt: Said in place of the drawing.
    """
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(buffer.getvalue())
    for each in root.findall(f"{{{_SVG}}}metadata"):
        root.remove(each)
    for element in root.iter():
        for key, value in element.attrib.items():
            element.set(key, _renamed(key, value, name))
    title = ElementTree.Element(f"{{{_SVG}}}title")
    title.text = alt
    root.insert(0, title)
    root.set("role", "img")
    root.set("aria-label", alt)
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    return ElementTree.tostring(root, encoding="unicode")


def _renamed(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    return f"#{name}-{value[1:]}" if key.endswith("href") else value.replace("url(#", f"url(#{name}-")


def _figure(height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    axes = figure.subplots()
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _draw_difference(axes: Any, contrast: Contrast, place: float, along: str) -> None:
    assert contrast.paired is not None
    found = contrast.paired.difference
    colour, marker, face = _VERDICTS.get(verdict(found), _NOTHING_SHOWN)
    reach = 0.0 if found.interval is None else found.interval[1] - found.mean
    values = (found.mean, place) if along == "x" else (place, found.mean)
    axes.errorbar(
        *values, **{f"{along}err": reach}, color=colour, marker=marker, markerfacecolor=face, capsize=3, linestyle=""
    )


def _mean_curve(lines: Sequence[Line]) -> list[tuple[float, float]]:
    """The mean over runs, at the steps that all of them were looked at."""
    curves = [{point.step: point.loss for point in line.curve} for line in lines]
    shared = sorted(set.intersection(*map(set, curves))) if curves else []
    return [(step, fmean(curve[step] for curve in curves)) for step in shared]


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _plain_ticks(axes: Any) -> None:
    """Losses as 0.45, not as powers of ten."""
    from matplotlib.ticker import AutoLocator, LogLocator, NullLocator, ScalarFormatter

    low, high = axes.get_ylim()
    is_wide = high / low > 3
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)) if is_wide else AutoLocator())
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(ScalarFormatter())


def _label_at_right(axes: Any, labels: Sequence[tuple[str, float, str]]) -> None:
    """Write each line's name beside its end, moved apart where they would overlap."""
    low, high = axes.get_ylim()
    to_share = axes.transScale.transform
    bottom, top = to_share((0, low))[1], to_share((0, high))[1]
    ordered = sorted(labels, key=lambda each: each[1])
    own = [(to_share((0, value))[1] - bottom) / (top - bottom) for _, value, _ in ordered]
    for (name, _, colour), end, place in zip(ordered, own, apart(own, _LABEL_HEIGHT), strict=True):
        axes.annotate(
            name, (1.0, end), xytext=(1.06, place), xycoords="axes fraction", textcoords="axes fraction",
            color=colour, fontsize=8, va="center",
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 0},
        )  # fmt: skip


def apart(places: Sequence[float], gap: float) -> list[float]:
    """Move rising places until they are a gap apart: too close ones spread around their middle.

    Args:
        places: In rising order.
        gap: To be kept.
    """
    groups: list[list[float]] = []
    for place in places:
        groups.append([place])
        while len(groups) > 1 and _lowest(groups[-1], gap) < _lowest(groups[-2], gap) + len(groups[-2]) * gap:
            groups[-2:] = [groups[-2] + groups[-1]]
    return [_lowest(group, gap) + index * gap for group in groups for index in range(len(group))]


def _lowest(group: Sequence[float], gap: float) -> float:
    """Where the lowest label of a group stands that is centred on the middle of its own places."""
    return fmean(group) - gap * (len(group) - 1) / 2
