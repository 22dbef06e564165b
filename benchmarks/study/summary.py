"""The report's figures as JSON, for documents that quote them."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from benchmarks.study.contrasts import (
    ALONE,
    DEFAULT_START,
    DEFAULT_WEIGHTING,
    Contrast,
    arms_of,
    contrasts_of,
)
from benchmarks.study.headline import Costs, Headline, Recipe
from benchmarks.study.lines import Line
from benchmarks.study.statistics import verdict
from benchmarks.study.tuning import families_of
from benchmarks.study.weakness import Standing
from hf_dwt.finetuning.statistics import Summary, summarise

_OTHER_REFERENCES = {
    "teaching": "from the same start alone",
    DEFAULT_WEIGHTING: "from the default weighting",
    DEFAULT_START: "from the default start",
}


def summary_of(
    lines: Sequence[Line], parts: Sequence[str], standings: Sequence[Standing], headlines: Sequence[Headline]
) -> dict[str, Any]:
    """What each part found, by arm, and where each learning rate ended.

    Losses are in nats per position, differences are from the student alone from a random start or, where it says so,
    from another recipe.

    Args:
        lines: As planned.
        parts: To be summed up.
        standings: Of the teachers.
        headlines: Of the parts with several budgets.
    """
    found: dict[str, Any] = {part: _arms(part, lines) for part in parts}
    for each in standings:
        if not each.baseline.dropout:
            beside = f"{each.baseline.inputs} {each.baseline.size}, {each.baseline.steps} steps"
            found.setdefault("teachers", {}).setdefault(beside, {})[each.teacher.name] = {
                "loss": each.teacher.loss,
                "loss behind": each.behind,
                "quality": each.quality,
                "overtaken at": [place.share for place in each.places],
                "verdict": each.verdict,
            }
    found["tuning"] = {
        f"{each.inputs} {each.size}, {each.start}, {'taught' if each.is_taught else 'alone'}, {each.steps} steps": {
            f"rate {rate:g}, loss": loss for rate, loss in each.losses.items()
        }
        for each in families_of(lines)
    }
    found["headline"] = {
        each.part: {
            "target loss": each.target,
            **{
                recipe.name: _needs(recipe, recipe.costs, each.alone)
                for recipe in each.recipes
                if recipe.costs is not None
            },
        }
        for each in headlines
    }
    return {name: each for name, each in found.items() if each}


def _needs(recipe: Recipe, costs: Costs, alone: Mapping[int, Line]) -> dict[str, Any]:
    budgets = {f"{share:g} of the budget": _against(runs, alone) for share, runs in recipe.runs.items()}
    seeds = {"seeds": len(recipe.crossings), "seeds that reach it": recipe.num_reached}
    return {**vars(costs), **seeds, **budgets}


def _against(runs: Mapping[int, Line], alone: Mapping[int, Line]) -> dict[str, Any]:
    """Of runs of one budget, beside those of the student alone with all of its own."""
    paired = sorted(runs.keys() & alone.keys())
    differences = _told(summarise([runs[seed].loss - alone[seed].loss for seed in paired])) if paired else {}
    return {"loss": fmean(line.loss for line in runs.values()), **differences}


def _arms(part: str, lines: Sequence[Line]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for arm in arms_of(line for line in lines if line.part == part):
        losses = summarise(list(arm.losses.values()))
        told[_key(arm.name)] = {"loss": losses.mean, "deviation of loss": losses.deviation, "seeds": losses.num_seeds}
    for contrast in contrasts_of(part, lines):
        if contrast.factor == ALONE:
            told[_key(contrast.arm)] |= _difference(contrast)
        elif contrast.factor in _OTHER_REFERENCES and contrast.paired is not None:
            told[_key(contrast.arm)][_OTHER_REFERENCES[contrast.factor]] = _difference(contrast)
    return told


def _key(arm: str) -> str:
    """Name of an arm without what parts the keys of a path."""
    return arm.replace("/", ", ")


def _difference(contrast: Contrast) -> dict[str, Any]:
    if contrast.paired is None:
        return {}
    return _told(contrast.paired.difference)


def _told(difference: Summary) -> dict[str, Any]:
    low, high = difference.interval or (None, None)
    return {
        "difference of loss": difference.mean,
        "lowest difference of loss": low,
        "highest difference of loss": high,
        "paired seeds": difference.num_seeds,
        "verdict": verdict(difference),
    }
