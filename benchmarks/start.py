"""What starting costs: importing, asking for help, and the first optimiser step of a script, in fresh processes.

    python -m benchmarks.start [--rounds 3] [--only imports first_step]

Results are kept in results/start.json.
"""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.measuring import in_turn, run_sections, summary

BIN = Path(sys.executable).parent
SCRIPT = """
import tempfile
from datasets import Dataset
from transformers import BertConfig, BertForMaskedLM
from {package} import {trainer}, {arguments}

config = BertConfig(vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
data = Dataset.from_dict({{"input_ids": [[5, 6, 7, 8]] * 8, "labels": [[-100, 6, -100, -100]] * 8}})
with tempfile.TemporaryDirectory() as folder:
    args = {arguments}(folder, max_steps=1, report_to="none", save_strategy="no", disable_tqdm=True, use_cpu=True{more})
    {trainer}(BertForMaskedLM(config), args, train_dataset=data{teacher}).train()
"""
STOCK = {"package": "transformers", "trainer": "Trainer", "arguments": "TrainingArguments", "more": "", "teacher": ""}
ALONE = STOCK | {"package": "hf_dwt", "trainer": "DWTTrainer", "arguments": "DWTTrainingArguments"}
# A random teacher is refused otherwise.
TAUGHT = ALONE | {"more": ", allow_bad_teacher=True", "teacher": ", teacher=BertForMaskedLM(config)"}


def imports(rounds: int) -> dict[str, Any]:
    """Imports and help, beside those of transformers and accelerate."""
    python = sys.executable
    commands = {
        "import transformers": [python, "-c", "import transformers"],
        "import hf_dwt": [python, "-c", "import hf_dwt"],
        "from transformers import Trainer": [python, "-c", "from transformers import Trainer"],
        "from hf_dwt import DWTTrainer": [python, "-c", "from hf_dwt import DWTTrainer"],
        "accelerate --help": [str(BIN / "accelerate"), "--help"],
        "hf-dwt --help": [str(BIN / "hf-dwt"), "--help"],
    }
    return _timed(commands, rounds, base="import transformers")


def first_step(rounds: int) -> dict[str, Any]:
    """A whole script that trains a tiny model for one step: stock, stand-alone, and with a teacher."""
    scripts = {"stock": STOCK, "alone": ALONE, "taught": TAUGHT}
    return _timed(
        {name: [sys.executable, "-c", SCRIPT.format(**script)] for name, script in scripts.items()},
        rounds,
        base="stock",
    )


def _timed(commands: dict[str, list[str]], rounds: int, base: str) -> dict[str, Any]:
    arms = {name: lambda command=command: [_seconds(command)] for name, command in commands.items()}
    in_turn(arms, 1)  # what the disk has to give is in memory then
    seconds = in_turn(arms, rounds)
    return {"arms": {name: summary(each, seconds[base]) for name, each in seconds.items()}, "seconds": seconds}


def _seconds(command: list[str]) -> float:
    started = time.perf_counter()
    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if finished.returncode:
        raise RuntimeError(f"{command[:2]} failed: {finished.stderr}")
    return time.perf_counter() - started


SECTIONS = {"imports": imports, "first_step": first_step}


if __name__ == "__main__":
    run_sections(SECTIONS, "start", sys.argv[1:], __doc__)
