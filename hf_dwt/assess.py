"""Is this teacher worth listening to? Measured before it speaks."""

# Axes in names: N positions, V vocabulary.

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from os import PathLike
from statistics import fmean
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from hf_dwt.collators import choose_collator, evaluation_collator, stacked
from hf_dwt.costs import StepCost, configured_flops, num_configured_parameters
from hf_dwt.heads import parts_of
from hf_dwt.language_models import Kind
from hf_dwt.losses import IGNORED_LABEL, hard_loss
from hf_dwt.positions import has_labels, positions_of, without_labels
from hf_dwt.preflight import original_tokens, unigram_loss
from hf_dwt.sampling import sampled_batches, with_columns
from hf_dwt.teacher import Teacher, as_teacher
from hf_dwt.verdicts import Verdict, judge_teacher
from hf_dwt.vocabulary import num_shared_tokens

_NUM_BINS = 15


@dataclass(frozen=True)
class TeacherReport:
    """What `assess_teacher` found; losses and entropy are in nats per position.

    Attributes:
        teacher: Where it came from.
        kind: 'masked' or 'causal'.
        num_examples: That were looked at.
        num_positions: Predictions that were asked for.
        loss: Hard loss.
        perplexity: exp(loss).
        accuracy: Share of positions whose token it finds most likely.
        entropy: Of its predictions.
        calibration_error: Mean distance of confidence and accuracy, over 15 bins of confidence, 0 to 1.
        unigram_loss: Of guessing by token frequency at the same positions.
        standalone_loss: Of the student trained alone, as it was given.
        quality: Share of the way from the unigram model to the student alone: 0 is no better than the one, 1 as good
            as the other. None without `standalone_loss`, or if that is not below the unigram model's.
        num_parameters: Of the teacher.
        relative_parameters: To the student's.
        relative_cost: Of a forward pass, to the student's. None if it cannot be counted.
        share_of_step: Share of the cost of a step with the teacher that is the teacher's.
        num_shared_tokens: That teacher and student both know.
        unknown_share: Share of the examples' tokens that are its unknown token; None if it has none.
        verdict: See `hf_dwt.verdicts`.
        evidence: What the verdict rests on.
        advice: What follows, each with its source.

    Example:
        >>> from hf_dwt.verdicts import judge_teacher
        >>> judge_teacher("masked", loss=2.0, unigram_loss=1.9, standalone_loss=None).verdict
        'useless'
    """

    teacher: str
    kind: Kind
    num_examples: int
    num_positions: int
    loss: float
    perplexity: float
    accuracy: float
    entropy: float
    calibration_error: float
    unigram_loss: float
    standalone_loss: float | None
    quality: float | None
    num_parameters: int
    relative_parameters: float | None
    relative_cost: float | None
    share_of_step: float | None
    num_shared_tokens: int
    unknown_share: float | None
    verdict: Verdict
    evidence: str
    advice: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {**asdict(self), "advice": list(self.advice)}


def assess_teacher(
    teacher: Teacher | PreTrainedModel | str | PathLike[str],
    dataset: Any,
    *,
    standalone_loss: float | None = None,
    student: PreTrainedModel | PreTrainedConfig | None = None,
    processing_class: Any | None = None,
    data_collator: Callable[[list[Any]], dict[str, Any]] | None = None,
    batch_size: int = 32,
    seed: int = 42,
) -> TeacherReport:
    """Measure a teacher on held-out examples with fixed masks, and say of it what there is evidence for.

    Args:
        teacher: As for `DWTTrainer`.
        dataset: Tokenised held-out examples; of more than ten thousand a sample is taken. Columns that the teacher
            does not read are left out.
        standalone_loss: Held-out hard loss of the student trained alone, nats per position, measured on the same
            examples and masks; never extrapolate it from a short run.
        student: Or its configuration, for relative sizes and costs.
        processing_class: The student's tokenizer. Default: the teacher's.
        data_collator: As for `DWTTrainer`.
        batch_size: Examples of a batch.
        seed: Of the masks.

    Raises:
        TypeError: If the teacher is no masked or causal language model.
        ValueError: If `standalone_loss` is no loss, the tokenizers differ, or the examples ask for nothing.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> small = GPT2LMHeadModel(GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=1))
        >>> assess_teacher(small, [{"input_ids": [3, 3, 3, 3]}] * 9).verdict
        'useless'
    """
    _check_loss(standalone_loss)
    teacher = as_teacher(teacher)
    kind = cast(Kind, teacher.kind)
    tokenizer = processing_class or teacher.processing_class
    config = student.config if isinstance(student, PreTrainedModel) else student
    vocab_size = teacher.vocab_size if config is None else config.get_text_config().vocab_size
    num_shared = num_shared_tokens(teacher.processing_class, tokenizer, teacher.vocab_size, vocab_size)
    collator = choose_collator(
        kind, data_collator, default=data_collator or stacked, train_dataset=None, eval_dataset=dataset,
        processing_class=tokenizer, seed=seed,
    )  # fmt: skip
    collate = with_columns(evaluation_collator(collator, seed), teacher.columns)
    batches = sampled_batches(dataset, collate, batch_size)
    measured = _measure(teacher, kind, batches, num_shared)
    cost = None if config is None else _step_cost(kind, config, teacher, measured)
    judgement = judge_teacher(kind, measured.loss, measured.unigram_loss, standalone_loss)
    num_parameters = teacher.model.num_parameters()
    return TeacherReport(
        teacher=str(teacher.origin),
        kind=kind,
        num_examples=measured.num_examples,
        num_positions=measured.num_positions,
        loss=measured.loss,
        perplexity=math.exp(min(measured.loss, 700.0)),
        accuracy=measured.accuracy,
        entropy=measured.entropy,
        calibration_error=measured.calibration_error,
        unigram_loss=measured.unigram_loss,
        standalone_loss=standalone_loss,
        quality=quality(measured.loss, measured.unigram_loss, standalone_loss),
        num_parameters=num_parameters,
        relative_parameters=None if student is None else num_parameters / _num_parameters(student, kind),
        relative_cost=None if cost is None else cost.teacher_forward / cost.student_forward,
        share_of_step=None if cost is None else cost.teacher_share,
        num_shared_tokens=num_shared,
        unknown_share=measured.unknown_share,
        verdict=judgement.verdict,
        evidence=judgement.evidence,
        advice=judgement.advice,
    )


def quality(loss: float, unigram_loss: float, standalone_loss: float | None) -> float | None:
    """Share of the way from the unigram model to the student alone that a teacher has come, without a unit.

    None without a stand-alone loss, or if that is not below the unigram model's.
    """
    if standalone_loss is None or not standalone_loss < unigram_loss:
        return None
    return (unigram_loss - loss) / (unigram_loss - standalone_loss)


def calibration_error(confidence_N: Tensor, is_right_N: Tensor) -> float:
    """Mean distance of confidence and accuracy over 15 bins of confidence, weighted by their positions.

    Args:
        confidence_N: Shape (positions,), probability of the most likely token.
        is_right_N: Shape (positions,), whether it is the true one.

    Reference:
        Guo et al., 2017, equation 3 (https://arxiv.org/abs/1706.04599).
    """
    bins_N = (confidence_N * _NUM_BINS).long().clamp(max=_NUM_BINS - 1)
    distance = (is_right_N.double() - confidence_N.double()).cpu()
    return float(torch.zeros(_NUM_BINS, dtype=torch.double).index_add_(0, bins_N.cpu(), distance).abs().sum()) / len(
        distance
    )


@dataclass(frozen=True)
class _Measured:
    num_examples: int
    num_positions: int
    mean_length: float
    loss: float
    accuracy: float
    entropy: float
    calibration_error: float
    unigram_loss: float
    unknown_share: float | None


@torch.no_grad()
def _measure(teacher: Teacher, kind: Kind, batches: Iterable[dict[str, Any]], num_shared: int) -> _Measured:
    device = teacher.model.device
    lengths: list[int] = []
    tokens, labels, columns = [], [], []
    for batch in batches:
        if not has_labels(batch):
            raise ValueError(f"A batch of `dataset` has no `labels`, only {', '.join(map(repr, batch))}.")
        batch = {name: value.to(device) for name, value in batch.items() if isinstance(value, Tensor)}
        positions = positions_of(kind, batch)
        head = teacher.head_at(without_labels(batch), positions, num_shared, parts_of(positions, teacher.vocab_size))
        for rows in head.parts:
            known = positions.labels[rows] < num_shared
            labels.append(positions.labels[rows][known])
            columns.append(_figures(head.logits(rows)[known], labels[-1]))
        tokens.append(original_tokens(batch))
        lengths += [batch["input_ids"].shape[1]] * len(batch["input_ids"])
    if not labels or not sum(map(len, labels)):
        raise ValueError(f"`dataset` asks for no prediction: it is empty, or every label is {IGNORED_LABEL}.")
    all_tokens, all_labels = torch.cat(tokens), torch.cat(labels)
    loss_N, entropy_N, confidence_N, is_right_N = torch.cat(columns, dim=1)
    unknown = None if teacher.processing_class is None else teacher.processing_class.unk_token_id
    return _Measured(
        num_examples=len(lengths),
        num_positions=len(all_labels),
        mean_length=fmean(lengths),
        loss=float(loss_N.mean()),
        accuracy=float(is_right_N.mean()),
        entropy=float(entropy_N.mean()),
        calibration_error=calibration_error(confidence_N, is_right_N),
        unigram_loss=unigram_loss(all_tokens, all_labels, num_shared),
        unknown_share=None if unknown is None else float((all_tokens == unknown).float().mean()),
    )


def _figures(logits_NV: Tensor, labels: Tensor) -> Tensor:
    """Loss, entropy, confidence and whether it is right, shape (4, positions)."""
    logs_NV = logits_NV.float().log_softmax(dim=-1)
    probabilities_NV = logs_NV.exp()
    confidence_N, guess_N = probabilities_NV.max(dim=-1)
    entropy_N = -torch.xlogy(probabilities_NV, probabilities_NV).sum(dim=-1)
    return torch.stack([hard_loss(logits_NV, labels), entropy_N, confidence_N, (guess_N == labels).float()])


def _step_cost(kind: Kind, student: PreTrainedConfig, teacher: Teacher, measured: _Measured) -> StepCost | None:
    num_examples = min(measured.num_examples, 8)
    num_positions = round(measured.num_positions / measured.num_examples * num_examples)
    shape = (num_examples, round(measured.mean_length), max(num_positions, 1))
    try:
        return StepCost(*(configured_flops(each, kind, *shape) for each in (student, teacher.model.config)))
    except ValueError:
        return None


def _num_parameters(student: PreTrainedModel | PreTrainedConfig, kind: Kind) -> int:
    if isinstance(student, PreTrainedModel):
        return int(student.num_parameters())
    return num_configured_parameters(student, kind)


def _check_loss(standalone_loss: float | None) -> None:
    if standalone_loss is not None and not (math.isfinite(standalone_loss) and standalone_loss >= 0):
        raise ValueError(f"`standalone_loss` is a loss in nats per position, at least 0, got {standalone_loss}.")
