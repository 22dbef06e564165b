"""Both losses of a causal LM with a large vocabulary, in several forms: seconds and peak memory of each."""

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.utils import logging

from benchmarks.measuring import PeakMemory
from benchmarks.step_arms import Setting
from hf_dwt import DWTTrainer, DWTTrainingArguments

Form = Callable[[PreTrainedModel, PreTrainedModel, dict[str, Tensor]], Tensor]
NUM_REPEATS = 2


def full_logits(student: PreTrainedModel, teacher: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
    """Cross-entropy and divergence from the full logits of both models."""
    outputs = student(**batch)
    with torch.no_grad():
        teacher_logits = teacher(input_ids=batch["input_ids"]).logits[:, :-1]
    student_logs = F.log_softmax(outputs.logits[:, :-1].float(), dim=-1)
    teacher_logs = F.log_softmax(teacher_logits.float(), dim=-1)
    soft = F.kl_div(student_logs, teacher_logs, reduction="sum", log_target=True)
    return outputs.loss + soft / batch["labels"][:, 1:].numel()


def trl(student: PreTrainedModel, teacher: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
    """The model's own cross-entropy and the divergence of TRL's GKD trainer, forward KL."""
    from trl.experimental.gkd import GKDTrainer

    outputs = student(**batch)
    with torch.no_grad():
        teacher_logits = teacher(input_ids=batch["input_ids"]).logits[:, :-1]
    labels = batch["labels"][:, 1:]
    soft = GKDTrainer.generalized_jsd_loss(
        outputs.logits[:, :-1], teacher_logits, labels, beta=0, num_items_in_batch=labels.numel()
    )
    return outputs.loss + soft


def liger(student: PreTrainedModel, teacher: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
    """Liger's fused linear divergence with a hard loss; it runs on GPUs only.

    Raises:
        ImportError: Where it is not installed, or has no kernels.
    """
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    loss = LigerFusedLinearJSDLoss(weight_hard_loss=1.0, weight_soft_loss=1.0, beta=0.0, compiled=False)
    hidden = student.model(input_ids=batch["input_ids"]).last_hidden_state[:, :-1].flatten(end_dim=1)
    with torch.no_grad():
        teacher_hidden = teacher.model(input_ids=batch["input_ids"]).last_hidden_state[:, :-1].flatten(end_dim=1)
    labels = batch["labels"][:, 1:].flatten()
    heads = student.lm_head.weight, teacher.lm_head.weight
    answer = loss(hidden, heads[0], teacher_hidden, heads[1], labels)
    return answer[0] if isinstance(answer, tuple) else answer


FORMS = ("full logits", "TRL", "Liger", "ours")


def form_of(name: str, student: PreTrainedModel, teacher: PreTrainedModel, device: str) -> Form:
    """A form by its name; ours is the trainer's own loss."""
    if name != "ours":
        return {"full logits": full_logits, "TRL": trl, "Liger": liger}[name]
    settings = {"weighting": "constant", "soft_loss_weight": 1.0, "report_to": "none", "use_cpu": device == "cpu"}
    trainer = DWTTrainer(student, DWTTrainingArguments(tempfile.gettempdir(), **settings), teacher=teacher)
    return lambda student, teacher, batch: trainer.compute_loss(
        student, batch, num_items_in_batch=batch["labels"][:, 1:].numel()
    )


def measure_form(setting: Setting, name: str) -> dict[str, float]:
    """Seconds, and peak memory above models and gradients (MiB), of both losses and their gradients."""
    logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    student, teacher = setting.model(), setting.model(is_teacher=True).requires_grad_(False)
    torch.manual_seed(0)
    ids = torch.randint(setting.vocab_size, (setting.batch_size, setting.length), device=setting.device)
    batch = {"input_ids": ids, "labels": ids}
    form = form_of(name, student.train(), teacher.eval(), setting.device)
    for parameter in student.parameters():
        # Written to, since memory of zeros is taken only when it is.
        parameter.grad = torch.empty_like(parameter).fill_(0.0)
    seconds = []
    with PeakMemory(setting.device) as peak:
        for _ in range(NUM_REPEATS):
            started = time.perf_counter()
            loss = form(student, teacher, batch)
            loss.backward()
            value = loss.item()
            seconds.append(time.perf_counter() - started)
            del loss
    return {"seconds": statistics.median(seconds), "MiB": peak.mebibytes, "loss": value}
