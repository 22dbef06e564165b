"""What does not go together is refused here, before any work starts."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, Trainer
from transformers.trainer_utils import unwrap_peft_model
from transformers.utils import logging

from hf_dwt.arguments import DistillationArguments
from hf_dwt.language_models import language_model_kind, longest_sequence
from hf_dwt.positions import Positions, logits_at
from hf_dwt.preflight import FirstImpression
from hf_dwt.publishing.record import TeacherFacts
from hf_dwt.remapping.verify import difference_of, evaluating
from hf_dwt.teacher import Teacher, num_mapped_devices
from hf_dwt.unsharded import num_entries

logger = logging.get_logger(__name__)

# Standard deviations of the logits.
_EQUAL_WITHIN = 0.05


def refuse_teacher(model: nn.Module, teacher: Any | None) -> None:
    """Refuse to teach what is no language model.

    Raises:
        TypeError: If there is a teacher.
    """
    if teacher is not None:
        raise TypeError(
            f"A teacher needs a student that is a masked or causal language model; `model` is "
            f"{type(model).__name__}. Without `teacher` it is trained as by `Trainer`."
        )


def refuse_options(trainer: Trainer, has_teacher: bool) -> None:
    """Refuse options of `Trainer` under which the loss would not be what it says.

    Raises:
        ValueError: Naming the option and what to do.
    """
    args, config = trainer.args, trainer.model.config.to_dict()
    if has_teacher and trainer.compute_loss_func is not None:
        raise ValueError(
            "`compute_loss_func` cannot be used with a teacher: both would be the loss. Register a weighting policy, "
            "or train without `teacher`."
        )
    if args.n_gpu > 1:
        raise ValueError(
            f"{args.n_gpu} GPUs without a launcher use `nn.DataParallel`, which cannot gather single positions. "
            f"Start the script with `torchrun --nproc_per_node {args.n_gpu}`, or show it one GPU."
        )
    num_devices = num_mapped_devices(trainer.model)
    if num_devices > 1:
        raise ValueError(
            f"`model` is spread over {num_devices} devices by a `device_map`. Load it without one; ZeRO-3 and FSDP2 "
            "divide it over several GPUs."
        )
    if args.use_liger_kernel:
        raise ValueError("`use_liger_kernel` would replace the head whose logits are compared: leave it out.")
    sizes = {
        "tensor": trainer.get_tp_size(),
        "context": trainer.get_cp_size(),
        "sequence": trainer.get_sp_size(),
    }
    for name, size in sizes.items():
        if size > 1:
            raise ValueError(f"{name} parallelism (here over {size} processes) is not supported; use DDP.")
    if config.get("output_router_logits"):
        raise ValueError("Auxiliary router losses are not supported: set `output_router_logits=False`.")


def check_pair(teacher: Teacher, student: nn.Module) -> None:
    """Check that a teacher can teach a student; one that is larger, or reads less at once, is told, not refused.

    Raises:
        ValueError: If they are of different kinds, or share parameters.
    """
    kind = language_model_kind(student)
    if teacher.kind != kind:
        raise ValueError(f"The teacher ({teacher.origin}) is a {teacher.kind} language model, `model` a {kind} one.")
    shared = {id(each) for each in teacher.model.parameters()} & {id(each) for each in student.parameters()}
    if shared and not teacher.shares_student:
        raise ValueError("`teacher` and `model` share parameters: a frozen teacher cannot be trained. Pass a copy.")
    num_teacher, num_student = (num_entries(model.parameters()) for model in (teacher.model, student))
    if num_teacher > num_student:
        logger.warning(
            f"The teacher ({teacher.origin}) has more parameters than the student, {num_teacher:,} against "
            f"{num_student:,}: this is ordinary distillation, not distillation from a weak teacher."
        )
    longest, students = longest_sequence(teacher.model), longest_sequence(unwrap_peft_model(student))
    if longest is not None and (students is None or longest < students):
        logger.warning(
            f"The teacher ({teacher.origin}) reads at most {longest} tokens (`max_position_embeddings`), the student "
            f"{'any number' if students is None else students}: a longer example stops the run, in evaluation too, "
            f"while the teacher is asked. Cut them to {longest}."
        )


def warn_of_added_tokens(teacher: Teacher, num_added: int) -> None:
    """Tell of tokens that the student's tokenizer has added, where they are not mapped to the unknown one."""
    if num_added:
        logger.warning(
            f"The student's tokenizer has {num_added} tokens that the teacher ({teacher.origin}) lacks: an example "
            "that holds one stops the run, in evaluation too, while the teacher is asked. "
            "`map_added_tokens_to_unknown=True` shows it its unknown token."
        )


def require_unknown_token(teacher: Teacher) -> None:
    """Check that there is a token to map added tokens to.

    Raises:
        ValueError: If the teacher's tokenizer is not known, or has no unknown token.
    """
    if teacher.processing_class is None or teacher.processing_class.unk_token_id is None:
        raise ValueError(
            f"`map_added_tokens_to_unknown` needs a teacher with an unknown token; the tokenizer of {teacher.origin} "
            "has none, or is not there."
        )


def judge(teacher: Teacher | TeacherFacts, impression: FirstImpression, allow_bad_teacher: bool) -> None:
    """Refuse a teacher that is no better than guessing by token frequency.

    Raises:
        ValueError: If it is, or knows none of the tokens asked for, unless it is allowed; then it is only told.
    """
    if not impression.num_positions:
        fault = (
            "knows none of the tokens that the first batches ask for: all lie beyond the vocabulary that it shares "
            "with the student. Are the labels ids of its tokenizer, and is this its kind of text?"
        )
    elif impression.teacher_loss < impression.unigram_loss:
        return
    else:
        fault = (
            f"is no better than guessing by token frequency: its loss is {impression.teacher_loss:.3f} against "
            f"{impression.unigram_loss:.3f} nats at {impression.num_positions:,} positions. Are these its trained "
            "weights, its tokenizer and its kind of text?"
        )
    message = f"The teacher ({teacher.origin}) {fault}"
    if not allow_bad_teacher:
        raise ValueError(f"{message} `allow_bad_teacher=True` trains anyway.")
    logger.warning(message)


def warn_of_unused_choices(choices: DistillationArguments) -> None:
    """Tell which settings have no effect because there is no teacher."""
    defaults = DistillationArguments()
    names = [field.name for field in fields(DistillationArguments)]
    unused = [name for name in names if getattr(choices, name) != getattr(defaults, name)]
    if unused:
        logger.warning(f"There is no `teacher`: {', '.join(unused)} have no effect.")


@torch.no_grad()
def warn_of_equals(
    student: PreTrainedModel, inputs: Mapping[str, Any], positions: Positions, teacher_logits: Tensor
) -> None:
    """Warn if the student says what its teacher says: the soft loss then only holds it there.

    Args:
        student: As training will start from it.
        inputs: A batch without labels.
        positions: Where to predict in it.
        teacher_logits: Shape (positions, shared tokens).
    """
    with evaluating(student):
        own = logits_at(student, inputs, positions)[:, : teacher_logits.shape[-1]]
    difference = difference_of(teacher_logits, own)
    # Half precision differs by rounding, a student of its own by several standard deviations.
    if difference.relative < _EQUAL_WITHIN:
        logger.warning(
            "The student starts as its teacher's equal (grown exactly, or a copy): the soft loss can only hold it "
            "there, and does so the longer it weighs. Train it alone, or let the teacher's weight end early: "
            '`weighting="inheritance", weighting_kwargs={"end": 0.1}`.'
        )
