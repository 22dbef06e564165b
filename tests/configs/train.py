"""A user's own script: an ordinary script for `Trainer`, with the class replaced and a teacher given."""

from collections.abc import Sequence
from dataclasses import dataclass

from datasets import load_dataset
from engine_report import report_engine
from transformers import AutoModelForMaskedLM, AutoTokenizer, HfArgumentParser

from hf_dwt import DWTTrainer, DWTTrainingArguments


@dataclass
class ModelArguments:
    """Folders or Hub ids."""

    student: str
    teacher: str
    text: str


def main(arguments: Sequence[str] | None = None) -> DWTTrainer:
    """Train, and save the student."""
    own, args = HfArgumentParser([ModelArguments, DWTTrainingArguments]).parse_args_into_dataclasses(arguments)
    tokenizer = AutoTokenizer.from_pretrained(own.student)
    text = load_dataset("text", data_files=own.text, split="train")
    examples = text.map(lambda rows: tokenizer(rows["text"]), batched=True, remove_columns="text")
    trainer = DWTTrainer(
        model=AutoModelForMaskedLM.from_pretrained(own.student),
        args=args,
        train_dataset=examples,
        processing_class=tokenizer,
        teacher=own.teacher,
    )
    trainer.train()
    trainer.save_model()
    return trainer


if __name__ == "__main__":
    report_engine(main())
