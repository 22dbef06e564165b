"""What may be said of a teacher, and the evidence that it rests on. All thresholds are here.

| the teacher | verdict | evidence |
|---|---|---|
| is no better than the unigram model | useless | counting tokens predicts as well |
| is ahead of the student alone | stronger than its student | by definition: this is ordinary distillation |
| is 0.15 to 0.45 nats behind it, masked LM | like some that helped | Knowledge Inheritance, our study: see below |
| anything else | not known | too little: of causal ones one teacher, 0.69 nats behind, that helped in our study |

Teachers of Knowledge Inheritance were 0.15 to 0.17 nats behind, those of the study 0.19 to 0.45. They helped with
weights that fell to 0; a weight that stayed at 1 hurt with each of the study's that it was tried with.

The paper itself gives no threshold: its teachers of 0.78 of the student's size helped and those of 0.57 and 0.46 hurt,
but it reports no losses (Lee et al., 2023, figure 2).
"""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["useless", "stronger than its student", "like some that helped", "not known"]

# Nats behind the stand-alone student, of masked language models. The lower one is Knowledge Inheritance's, a teacher of
# perplexity 4.18 beside a student that reached 3.58 alone and 3.41 with it: 0.155. The upper one is the study's.
HELPED_FROM = 0.15
HELPED_TO = 0.45
# Of a causal teacher, the study's only one: too few for a range.
HELPED_CAUSAL = 0.69
_INHERITANCE = "Qin et al., 2022 (Knowledge Inheritance, https://arxiv.org/abs/2105.13880)"
_SCALING = "Busbridge et al., 2025 (https://arxiv.org/abs/2502.08606)"
_PAPER = "Lee et al., 2023 (https://arxiv.org/abs/2305.18239)"
_STUDY = "this project's study (small students; benchmarks/results/study.md)"


@dataclass(frozen=True)
class Judgement:
    """What is said of a teacher.

    Attributes:
        verdict: In a word or a few.
        evidence: What it rests on.
        advice: What follows for the run, each with its source.
    """

    verdict: Verdict
    evidence: str
    advice: tuple[str, ...] = ()


def judge_teacher(kind: str, loss: float, unigram_loss: float, standalone_loss: float | None) -> Judgement:
    """Say of a teacher what there is evidence for.

    Args:
        kind: 'masked' or 'causal'.
        loss: Its hard loss, nats per position.
        unigram_loss: Of guessing by token frequency at the same positions.
        standalone_loss: Of the student trained alone, at the same positions; None if it is not known.
    """
    if not loss < unigram_loss:
        return Judgement(
            "useless",
            f"Its loss, {loss:.3f} nats, is not below the {unigram_loss:.3f} of guessing by token frequency.",
            ("Look for a teacher that was trained on this kind of text, with this tokenizer. (By arithmetic.)",),
        )
    if standalone_loss is None:
        return Judgement(
            "not known",
            "How a teacher compares with its student is told by the loss of the student alone, which is not given: "
            "`hf-dwt train --baseline` measures it.",
            _ADVICE_FOR_WEAK,
        )
    behind = loss - standalone_loss
    if behind < 0:
        return Judgement(
            "stronger than its student",
            f"It is {-behind:.3f} nats ahead of the student alone: this is ordinary distillation, not distillation "
            "from a weak teacher.",
            (
                f"Leave the temperature at 1, which was found best: {_SCALING}.",
                "Let it speak to the end: a constant weight brought more with such a teacher than the default policy, "
                f"which silences it at half time, though not beyond doubt: {_STUDY}.",
            ),
        )
    told = f"It is {behind:.3f} nats behind the student alone. "
    if kind == "masked" and HELPED_FROM <= behind <= HELPED_TO:
        return Judgement(
            "like some that helped",
            f"{told}Teachers of masked language models that were {HELPED_FROM} to {HELPED_TO} behind helped theirs, of "
            f"other sizes and on other text, with a weight that fell to 0: {_INHERITANCE}; {_STUDY}. Whether this one "
            "will is not measured.",
            (
                "Let the soft-loss weight fall to 0 in a straight line, as the default policy does, which was better "
                f"than a constant weight and than a step: {_INHERITANCE}. A weight that stayed at 1 hurt with each "
                f"such teacher that it was tried with: {_STUDY}.",
            ),
        )
    return Judgement(
        "not known",
        f"{told}The helping teachers whose losses are known here were behind by {HELPED_FROM} to {HELPED_TO} nats, of "
        f"masked language models ({_INHERITANCE}; {_STUDY}), and one by {HELPED_CAUSAL}, of a causal one (the study): "
        "too little for a verdict on this one.",
        _ADVICE_FOR_WEAK,
    )


_ADVICE_FOR_WEAK = (
    "Let the soft-loss weight reach 0 by half time, as the default policy does: it helped with weak teachers and was "
    "not shown to hurt with a very weak one, while a weight that stays hurt the more the weaker the teacher: "
    f"{_STUDY}.",
    f"A lower weight for particularly weak teachers is suggested by {_SCALING}, who found temperature 1 best.",
    f"A higher temperature for very weak teachers is suggested, and was not measured, by {_PAPER}, limitations. With a "
    f"weight that stays it hurt less than temperature 1, and did not help: {_STUDY}.",
)
