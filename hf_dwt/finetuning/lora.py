"""Fine-tuning of low-rank adapters and the head, with peft."""

from pathlib import Path

import numpy as np
from transformers.pytorch_utils import Conv1D

from hf_dwt.finetuning.full import train_and_predict
from hf_dwt.finetuning.models import Candidate, load_classifier
from hf_dwt.finetuning.rows import Rows
from hf_dwt.finetuning.suites import Training


def tune_adapters(
    candidate: Candidate, rows: Rows, training: Training, seed: int, folder: Path
) -> dict[str, np.ndarray]:
    """Train adapters on all linear layers, and the head; keep them, and predict.

    Args:
        candidate: Where it starts; its own weights stay as they are.
        rows: Of the task.
        training: How.
        seed: Of head and adapters, and of the order of the rows.
        folder: Where adapters and head are saved, for `AutoPeftModelForSequenceClassification.from_pretrained`.

    Returns:
        As `fine_tune`.

    Raises:
        ImportError: If peft is missing; `pip install 'hf_dwt[peft]'` brings it.
    """
    from peft import LoraConfig, get_peft_model

    base = load_classifier(candidate, rows.labels, seed)
    config = LoraConfig(
        task_type="SEQ_CLS",
        r=training.lora_rank,
        lora_alpha=2 * training.lora_rank,
        target_modules="all-linear",
        # GPT-2 keeps its matrices the other way round.
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in base.modules()),
    )
    model = get_peft_model(base, config)
    predictions = train_and_predict(model, candidate, rows, training, seed, training.lora_learning_rate)
    model.save_pretrained(folder)
    return predictions
