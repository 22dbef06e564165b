"""Every measured figure of the README is that of the raw results, which these sentences ask for in double braces."""

import json
import re
from types import ModuleType

import pytest
from stand_ins import ROOT

README = " ".join((ROOT / "README.md").read_text().split())
RESULTS = ROOT / "benchmarks/results"

# Of the study.
STUDENT = "molecules 4x128, 1200 steps"


def _step(words: str, arm: str) -> str:
    return f"{words} {{{{ step-cpu.json/{arm}/ratio }}}}"


def _off(kept: str, weight: int) -> str:
    return f"{{{{ largest: cache-error.json/*/*, {kept}/hard + {weight} soft, % }}}} %"


def _policy(words: str, arm: str) -> str:
    found = {which: f"{{{{ study.json/weighting/{arm}/{which} }}}}" for which in ("loss", "paired seeds")}
    return f"| {words} | {found['loss']} | {_difference(f'weighting/{arm}')} | {found['paired seeds']} |"


def _difference(arm: str) -> str:
    low, mean, high = (f"{{{{ study.json/{arm}/{which}difference of loss }}}}" for which in ("lowest ", "", "highest "))
    return f"{mean} [{low}, {high}]"


def _behind(teacher: str) -> str:
    return f"{{{{ study.json/teachers/{STUDENT}/{teacher}/loss behind }}}}"


def _start(words: str, arm: str, recipe: str | None) -> str:
    cost = f"{{{{ study.json/headline/budgets/{recipe}/operations }}}}" if recipe else "not run"
    whole = f" {{{{ study.json/headline/budgets/{recipe}/with_training }}}}" if recipe else ""
    return f"| {words} | {_difference(f'start/{arm}')} | {cost} |{whole} |"


SENTENCES = [
    "paired differences with 95 % t intervals",
    "| no teacher | {{ study.json/weighting/alone/loss }} | | {{ study.json/weighting/alone/seeds }} |",
    _policy("**`inheritance`: to 0 by half time (default)**", "inheritance"),
    _policy("`handover`: to 0 with the gap", "handover"),
    _policy("constant 1, the paper's", "constant-1"),
    _policy("4 falling to 0 at the end", "linear-4-0"),
    _policy("4 falling to 1, the paper's belief", "linear-4-1"),
    _policy('constant 4, the paper\'s "strong"', "constant-4"),
    "every teacher that the student overtakes hurt ({{ study.json/quality/constant-1, near/difference of loss }} at "
    f"{_behind('near')} nats behind the student alone, "
    f"{{{{ study.json/quality/constant-1, very_weak/difference of loss }}}} at {_behind('very_weak')})",
    f"in 20 epochs over 1,920 molecules too ({_difference('finite/inheritance')}; `finite`; the teacher had read "
    f"more), and causal students of speeches ({_difference('causal/random-inheritance')}; `causal`)",
    _start("grown by `aki`", "alone, aki", "grown-by-aki"),
    _start("grown by `repeat_last`, the paper's way", "alone, repeat_last", None),
    _start("grown by `exact` (default)", "alone, exact", "grown-alone"),
    _start("random, taught by `inheritance`", "taught, random", "random-taught"),
    _start("grown by `exact`, and taught", "taught, exact", "grown-taught"),
    "Our aim, 0.40, is missed; by time on one core, that training included, `aki` needs "
    "{{ study.json/headline/budgets/grown-by-aki/time_with_training }}, `inheritance` "
    "{{ study.json/headline/budgets/random-taught/time_with_training }}",
    "Each of five fresh seeds by `aki` ends after 0.75 of the steps at or below its own student alone "
    f"(mean {_difference('headline/confirmation/grown-by-aki/0.75 of the budget')}; `--only confirmation`)",
    "and at twice the width after all of them "
    f"({_difference('headline/confirmation_larger/grown-by-aki/1 of the budget')}; needs "
    "{{ study.json/headline/confirmation_larger/grown-by-aki/operations }}; `confirmation_larger`)",
    f"those {_behind('near')} and {_behind('weak')} nats behind the student alone helped, and of one "
    f"{_behind('very_weak')} behind neither was shown",
    _step("student alone", "masked/alone"),
    _step("with its teacher", "masked/taught"),
    _step("TextBrewer", "masked/textbrewer"),
    _step("distillation as tutorials write it", "masked/tutorial"),
    "On an H100, with its teacher, "
    "{{ step-cuda.json/paper/BERT 6x768, teacher 4x768, 16 x 128 tokens/taught/ratio }} at 16 x 128 tokens, "
    "{{ step-cuda.json/paper/BERT 6x768, teacher 4x768, 256 x 128 tokens/taught/ratio }} at 256 x 128",
    "Of {{ growth_sweep.md/dense and built tiny }} dense language model classes of transformers that can be built "
    "tiny, {{ growth_sweep.md/dense and exact at width x2 }} double their width exactly",
    "{{ growth_sweep.md/not judged: the process died or ran out of time }} classes were not judged",
    "teachers of {{ cache-error.json/masked/teacher's held-out loss }} and "
    "{{ cache-error.json/causal/teacher's held-out loss }} nats hard + soft loss is off by at most "
    f"{_off('k = 8 + 8 drawn', 1)} (hard + 4 soft: {_off('k = 8 + 8 drawn', 4)}); "
    f"by up to {_off('k = 16', 1)} ({_off('k = 16', 4)}) with the 16 most likely tokens alone",
]


def _filled_in(sentence: str, figures: ModuleType) -> str:
    return re.sub(r"\{\{ (.+?) \}\}", lambda found: figures.figure(found[1]), sentence)


@pytest.mark.parametrize("sentence", SENTENCES)
def test_a_sentence_of_the_readme_has_the_figures_of_the_raw_results(figures: ModuleType, sentence: str) -> None:
    assert _filled_in(sentence, figures) in README


def test_what_the_readme_says_in_words_is_what_was_measured(figures: ModuleType) -> None:
    assert "no student that was judged claimed an equality that it lacked" in README
    assert figures.figure("growth_sweep.md/silently wrong, of those judged") == "0"
    assert "Three published checkpoints grow exactly too" in (ROOT / "docs/howto/start.md").read_text()
    checkpoints = json.loads((RESULTS / "growth.json").read_text())["checkpoints"]["arms"]
    assert [each["reported exact"] for each in checkpoints.values()] == ["True"] * 3


def test_what_the_readme_says_of_the_policies_is_what_the_study_found() -> None:
    found = json.loads((RESULTS / "study.json").read_text())
    helping = [arm for arm, each in found["weighting"].items() if each.get("verdict") == "helps"]
    assert helping == ["inheritance"], "the default is the one that helped"
    assert {arm for arm, each in found["weighting"].items() if each.get("verdict") == "hurts"} >= {
        *("constant-1", "constant-4", "linear-4-1", "linear-4-0")
    }
    assert found["teachers"][STUDENT]["weak"]["verdict"] == "weak"
    verdicts = {arm: each.get("verdict") for arm, each in found["quality"].items()}
    assert [verdicts[f"constant-1, {name}"] for name in ("near", "weak", "very_weak")] == ["hurts"] * 3
    assert [verdicts[f"inheritance, {name}"] for name in ("near", "weak")] == ["helps"] * 2
    assert [verdicts[f"inheritance, {name}"] for name in ("very_weak", "better")] == ["no difference shown"] * 2
    assert [found["finite"]["inheritance"]["verdict"], found["causal"]["random-inheritance"]["verdict"]] == [
        "helps"
    ] * 2


def test_a_higher_temperature_hurts_less_and_does_not_help_as_is_advised() -> None:
    found = json.loads((RESULTS / "study.json").read_text())["temperature"]
    for teacher in ("weak", "very_weak"):
        arms = [found[f"constant-1, {teacher}, temperature-{temperature}"] for temperature in (1, 2, 4)]
        differences = [arm["difference of loss"] for arm in arms]
        assert differences == sorted(differences, reverse=True)
        assert differences[-1] > 0


def test_every_fresh_seed_of_a_student_grown_by_aki_reaches_its_target() -> None:
    headline = json.loads((RESULTS / "study.json").read_text())["headline"]
    for part, share in (("confirmation", 0.75), ("confirmation_larger", 1)):
        found = headline[part]["grown-by-aki"]
        assert found["seeds that reach it"] == found["seeds"] == 5
        assert share - 0.25 < found["operations"] <= share


def test_the_sections_of_results_hold_no_figure_that_is_not_asked_for(figures: ModuleType) -> None:
    results = README[README.index("## Results") : README.index("## Three choices")]
    for sentence in SENTENCES:
        results = results.replace(_filled_in(sentence, figures), "")
    assert re.findall(r"\d+\.\d+|\d+ %", results) == []
