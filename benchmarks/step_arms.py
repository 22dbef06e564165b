"""What `benchmarks.step` compares: trainers of the same student on the same batches."""

import copy
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, processors
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    BertConfig,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from hf_dwt import DWTTrainer, DWTTrainingArguments
from hf_dwt.costs import forward_flops
from hf_dwt.data import CausalCollator, MaskingCollator

NUM_FIRST_STEPS = 2  # not counted: they warm up
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@dataclass(frozen=True)
class Setting:
    """One comparison: the models, the data and how they are run."""

    kind: str = "masked"
    layers: int = 6
    teacher_layers: int = 4
    hidden_size: int = 768
    teacher_hidden_size: int = 768
    vocab_size: int = 30_522
    batch_size: int = 8
    length: int = 128
    device: str = "cpu"
    num_steps: int = 3
    arguments: dict[str, Any] = field(default_factory=dict)

    def config(self, layers: int, hidden_size: int) -> Any:
        """Configuration of a model of so many layers and units."""
        sizes = {"vocab_size": self.vocab_size, "hidden_size": hidden_size, "num_hidden_layers": layers}
        sizes |= {"num_attention_heads": max(hidden_size // 64, 1), "max_position_embeddings": max(self.length, 512)}
        if self.kind == "masked":
            return BertConfig(**sizes, intermediate_size=4 * hidden_size)
        return LlamaConfig(**sizes, intermediate_size=8 * hidden_size // 3 // 64 * 64)

    def model(self, is_teacher: bool = False) -> PreTrainedModel:
        """A model with random weights, which cost what trained ones cost."""
        sizes = (self.teacher_layers, self.teacher_hidden_size) if is_teacher else (self.layers, self.hidden_size)
        torch.manual_seed(int(is_teacher))
        return self.auto_class.from_config(self.config(*sizes)).to(self.device)

    @property
    def auto_class(self) -> Any:
        """What builds the models."""
        return AutoModelForMaskedLM if self.kind == "masked" else AutoModelForCausalLM

    def flops(self, with_teacher: bool) -> int:
        """Multiplications and additions of a step by arithmetic, with heads where predictions are asked for."""
        num_positions = round(self.batch_size * self.length * (0.15 if self.kind == "masked" else 1))
        with torch.device("meta"):
            models = [
                self.auto_class.from_config(self.config(*sizes), attn_implementation="eager")
                for sizes in ((self.layers, self.hidden_size), (self.teacher_layers, self.teacher_hidden_size))
            ]
        student, teacher = (forward_flops(model, self.batch_size, self.length, num_positions) for model in models)
        return 3 * student + teacher * with_teacher

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """A tokenizer of that many words, special ones first."""
        words = [*SPECIAL, *map(str, range(self.vocab_size - len(SPECIAL)))]
        backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
        frame = [(word, words.index(word)) for word in ("[CLS]", "[SEP]")]
        backend.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=frame)
        names = {f"{word.strip('[]').lower()}_token": word for word in SPECIAL}
        return PreTrainedTokenizerFast(tokenizer_object=backend, **names)

    def blocks(self) -> Dataset:
        """Random tokens, enough for a run without an epoch's end."""
        num_rows = self.batch_size * (self.num_steps + NUM_FIRST_STEPS + 2)
        torch.manual_seed(0)
        ids = torch.randint(len(SPECIAL), self.vocab_size, (num_rows, self.length), dtype=torch.int32)
        columns = {"input_ids": ids.numpy(), "attention_mask": torch.ones_like(ids, dtype=torch.int8).numpy()}
        return Dataset.from_dict(columns)

    def collator(self) -> Callable[[list[Any]], dict[str, Any]]:
        """Masks 15 % of the tokens, or shifts them."""
        return MaskingCollator(self.tokenizer(), seed=0) if self.kind == "masked" else CausalCollator(self.tokenizer())


class StepTimer(TrainerCallback):
    """Seconds from the end of a step to the end of the next: a whole step, with its data and its logs."""

    def __init__(self, device: str) -> None:
        self.device, self.ends = device, []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Note the time once the device is done."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())

    def seconds(self) -> list[float]:
        """Of the steps after the first."""
        counted = self.ends[NUM_FIRST_STEPS - 1 :]
        return [end - start for start, end in pairwise(counted)]


class TutorialTrainer(Trainer):
    """Distillation as tutorials write it: full logits of both models, a divergence over all tokens."""

    def __init__(self, *args: Any, teacher: nn.Module, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.teacher = teacher.to(self.args.device).eval()

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Half the model's own loss, half the divergence."""
        outputs = model(**inputs)
        with torch.no_grad():
            teacher_logits = self.teacher(**inputs).logits
        vocab_size = outputs.logits.shape[-1]
        student_logs = F.log_softmax(outputs.logits.view(-1, vocab_size), dim=-1)
        soft = F.kl_div(student_logs, F.softmax(teacher_logits.view(-1, vocab_size), dim=-1), reduction="batchmean")
        loss = 0.5 * outputs.loss + 0.5 * soft
        return (loss, outputs) if return_outputs else loss


class Arms:
    """Runs of a setting by name; each starts from a copy of the same student."""

    def __init__(self, setting: Setting, dataset: Dataset | None = None) -> None:
        self.setting, self.dataset = setting, setting.blocks() if dataset is None else dataset
        self.student, self.collator = setting.model(), setting.collator()

    @cached_property
    def teacher(self) -> PreTrainedModel:
        """Built when an arm asks for it, so that it does not count in the memory of those that have none."""
        return self.setting.model(is_teacher=True)

    @cached_property
    def low_teacher(self) -> PreTrainedModel:
        """The same in bfloat16."""
        return copy.deepcopy(self.teacher).to(torch.bfloat16)

    def run(self, trainer_class: type[Trainer], **kwargs: Any) -> list[float]:
        """Train for a round and return the seconds of its steps; `settings` are arguments of a run with a teacher."""
        timer = StepTimer(self.setting.device)
        ours = issubclass(trainer_class, DWTTrainer)
        settings = {"weighting": "constant", "soft_loss_weight": 1.0, "allow_bad_teacher": True} if ours else {}
        settings = settings | kwargs.pop("settings", {}) if kwargs.get("teacher") is not None else {}
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            args = (DWTTrainingArguments if ours else TrainingArguments)(
                folder,
                per_device_train_batch_size=self.setting.batch_size,
                max_steps=self.setting.num_steps + NUM_FIRST_STEPS,
                use_cpu=self.setting.device == "cpu",
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                logging_strategy="no",
                **settings,
                **self.setting.arguments,
            )
            trainer = trainer_class(
                copy.deepcopy(self.student),
                args,
                self.collator,
                train_dataset=self.dataset,
                processing_class=self.setting.tokenizer(),
                callbacks=[timer],
                **kwargs,
            )
            trainer.train()
        return timer.seconds()

    def stock(self) -> list[float]:
        """The stock Trainer, without a teacher."""
        return self.run(Trainer)

    def tutorial(self) -> list[float]:
        """The stock Trainer with a teacher, as tutorials do it."""
        return self.run(TutorialTrainer, teacher=self.teacher)

    def alone(self) -> list[float]:
        """Ours without a teacher."""
        return self.run(DWTTrainer)

    def taught(self) -> list[float]:
        """Ours with the teacher in the student's precision."""
        return self.run(DWTTrainer, teacher=self.teacher)

    def taught_low(self) -> list[float]:
        """Ours with a teacher in bfloat16."""
        return self.run(DWTTrainer, teacher=self.low_teacher)

    def textbrewer(self) -> list[float]:
        """TextBrewer's distiller, whose loop takes the place of a Trainer's.

        Raises:
            ImportError: If it is not installed, or does not run on these versions.
        """
        from textbrewer import DistillationConfig, GeneralDistiller, TrainingConfig

        def adaptor(batch: dict[str, Tensor], outputs: Any) -> dict[str, Any]:
            return {"logits": outputs.logits, "losses": outputs.loss}

        student, starts = copy.deepcopy(self.student).train(), []

        def timed(batch: Any) -> Any:
            starts.append(time.perf_counter())
            return batch

        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            num_steps = self.setting.num_steps + NUM_FIRST_STEPS + 1
            config = TrainingConfig(output_dir=folder, device=self.setting.device, ckpt_steps=10**9)
            losses = DistillationConfig(temperature=1, hard_label_weight=1, kd_loss_weight=1)
            distiller = GeneralDistiller(config, losses, self.teacher.eval(), student, adaptor, adaptor)
            loader = torch.utils.data.DataLoader(
                self.dataset, self.setting.batch_size, shuffle=True, collate_fn=self.collator
            )
            optimizer = torch.optim.AdamW(student.parameters(), lr=5e-5, weight_decay=0.0, fused=True)
            settings = {"max_grad_norm": 1.0, "batch_postprocessor": timed}
            with distiller:
                distiller.train(optimizer, loader, num_steps=num_steps, callback=None, **settings)
        return [end - start for start, end in pairwise(starts[2:])]
