"""Each shipped configuration trains on two ranks by the README's own command, on the engine that it names."""

import contextlib
import json
import os
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import train
from launcher import NUM_RANKS, run_together
from readme_commands import (
    CONFIGS,
    ONE_MACHINE,
    OTHERS,
    SEVERAL_MACHINES,
    in_a_batch_job,
    on_one_machine,
    on_two_machines,
)
from tiny_runs import WORDS, make_student, make_teacher, tokenizer
from transformers import AutoModelForMaskedLM

from benchmarks.memory_table import ENGINES

HERE = Path(__file__).parent
REPOSITORY = CONFIGS.parent
BATCH_JOB = "slurm/train.sbatch"
# Programs that a machine of one's own lacks, ahead of the others.
STAND_INS = {"PATH": os.pathsep.join([str(HERE / "stand_ins"), str(Path(sys.executable).parent), os.environ["PATH"]])}
RANKS = range(NUM_RANKS)

# The script's own options. Adam is PyTorch's own, since the fused one of DeepSpeed would be compiled.
TRAINING = {"optim": "adamw_torch", "train_sampling_strategy": "sequential", "allow_bad_teacher": "true"}
TRAINING |= {"max_steps": 2, "logging_steps": 1, "report_to": "none", "disable_tqdm": "true", "output_dir": "student"}
SIZES = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
FOLDERS = {"student": "untrained", "teacher": "teacher", "text": "text.txt"}

EXPECTED = {
    "deepspeed/zero0.json": "zero0",
    "deepspeed/zero1.json": "zero1",
    "deepspeed/zero2.json": "zero2",
    "deepspeed/zero2_offload.json": "zero2",
    "deepspeed/zero3.json": "zero3",
    "deepspeed/zero3_offload.json": "zero3",
    "accelerate/ddp.yaml": "ddp",
    "accelerate/fsdp2.yaml": "fsdp2",
    "accelerate/deepspeed_zero2.yaml": "zero2",
    "accelerate/deepspeed_zero3.yaml": "zero3",
    "accelerate/multi_node_zero3.yaml": "zero3",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    furnish(tmp_path)
    return tmp_path


def furnish(folder: Path) -> None:
    """Put script, models, text and a copy of the configurations where a user would have them."""
    shutil.copytree(CONFIGS, folder / "trainer_configs")
    (folder / "train.py").symlink_to(HERE / "train.py")
    make_student(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0).save_pretrained(folder / "untrained")
    make_teacher().save_pretrained(folder / "teacher")
    for name in ("untrained", "teacher"):
        tokenizer().save_pretrained(folder / name)
    sentences = [" ".join((WORDS * 3)[start : start + 14]) for start in range(len(WORDS))]
    (folder / "text.txt").write_text("\n".join(sentences * 2) + "\n")


def options(**changes: Any) -> list[str]:
    return [
        word
        for name, value in {**FOLDERS, **TRAINING, **SIZES, **changes}.items()
        for word in (f"--{name}", str(value))
    ]


@pytest.fixture(scope="session")
def losses(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """What one process logs with all eight examples of a step in its batch."""
    folder = tmp_path_factory.mktemp("one_process")
    furnish(folder)
    with contextlib.chdir(folder):
        whole = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "use_cpu": "true"}
        trainer = train.main(options(**whole))
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def environment(file: str, **more: str) -> dict[str, str]:
    """The way of GPUs for engines that are not run on the CPU otherwise, and nothing that is compiled."""
    engine = "deepspeed" if EXPECTED[file].startswith("zero") else EXPECTED[file].rstrip("2")
    search = [str(HERE / "on_cpu"), str(REPOSITORY)]
    return {"RANKS_ENGINE": engine, "DS_ACCELERATOR": "cpu", "PYTHONPATH": os.pathsep.join(search), **more}


def with_torch_adam(folder: Path, file: str) -> None:
    """Take PyTorch's Adam in a file that offloads, in the folder's copy."""
    path = folder / "trainer_configs" / file
    content = json.loads(path.read_text())
    content["optimizer"]["params"]["torch_adam"] = True
    path.write_text(json.dumps(content))


def words_for(file: str) -> list[str]:
    """The script's own options; without a GPU plain data parallelism is asked for on the CPU."""
    return options(use_cpu="true") if EXPECTED[file] == "ddp" else options()


def check_engine(folder: Path, file: str, losses: list[float], *, ranks_here: int, adam: str = "AdamW") -> None:
    """What each rank tells is the engine that the file names, with its share of the student, and the right losses."""
    ranks = [json.loads((folder / f"student/engine.{rank}.json").read_text()) for rank in RANKS]
    row = ENGINES[file]
    for facts in ranks:
        assert facts["engine"] == EXPECTED[file]
        assert (facts["ranks"], facts["ranks here"]) == (NUM_RANKS, ranks_here)
        assert facts["optimizer"] == adam
        assert facts["losses"] == pytest.approx(losses, abs=1e-5)
        if EXPECTED[file].startswith("zero"):
            # Gradients go where the optimizer is.
            assert {*facts["offload"]} == row.offloaded - {"gradients"}
        # The shares that the table of memory counts.
        for part, held in {"weights": facts["weights"], "states": facts["moments"]}.items():
            assert held / facts["parameters"] == pytest.approx(0.5 if part in row.split else 1, abs=0.05)
    student, loading = AutoModelForMaskedLM.from_pretrained(folder / "student", output_loading_info=True)
    assert not loading["missing_keys"]
    assert student.num_parameters() == ranks[0]["parameters"]


# One machine


@pytest.mark.slow
@pytest.mark.parametrize("file", [file for file in ONE_MACHINE if file in EXPECTED])
def test_a_configuration_trains_on_one_machine(file: str, folder: Path, losses: list[float]) -> None:
    if ENGINES[file].offloaded:
        with_torch_adam(folder, file)
    command = [*on_one_machine(ONE_MACHINE[file]), *words_for(file)]
    run_together(command, folder=folder, environment=environment(file))
    check_engine(folder, file, losses, ranks_here=2)


RECIPE = """
teacher: teacher
student: {num_hidden_layers: 2}
data: {source: text.txt, evaluation_source: text.txt, form: sentences, length: 32}
arguments:
  output_dir: student
  max_steps: 2
  save_steps: 2
  per_device_train_batch_size: 2
  optim: adamw_torch
  report_to: none
  disable_tqdm: true
  allow_bad_teacher: true
"""


@pytest.mark.slow
@pytest.mark.parametrize("command", OTHERS[:2], ids=lambda command: command.split()[0])
def test_a_recipe_trains_with_its_twins_and_one_process_tells_of_it(command: str, folder: Path) -> None:
    (folder / "recipe.yaml").write_text(RECIPE)
    file = next(file for file in EXPECTED if file in command)
    on_the_cpu = ["--use_cpu", "true"] if EXPECTED[file] == "ddp" else []
    words = [*on_one_machine(command), "--baseline", *on_the_cpu]
    said = run_together(words, folder=folder, environment=environment(file))
    assert said.count("Held-out results") == said.count("The student is in student") == 1
    assert len(list(folder.glob("student/**/run.json"))) == 3
    for checkpoint in (folder / "student/checkpoint-2", folder / "student/alone-equal-steps/checkpoint-2"):
        assert (checkpoint / "rng_state_1.pth").is_file()
        shares = [path.name for path in checkpoint.glob("*/*optim_states.pt")]
        assert len(shares) == (0 if EXPECTED[file] == "ddp" else NUM_RANKS)


# Two machines


@pytest.mark.slow
@pytest.mark.parametrize("file", ["deepspeed/zero2.json", "accelerate/ddp.yaml", "accelerate/multi_node_zero3.yaml"])
def test_a_configuration_trains_on_two_machines(file: str, folder: Path, losses: list[float]) -> None:
    commands = [[*on_two_machines(SEVERAL_MACHINES[file], machine), *words_for(file)] for machine in RANKS]
    run_together(*commands, folder=folder, environment=environment(file))
    check_engine(folder, file, losses, ranks_here=1)


@pytest.mark.slow
def test_deepspeed_starts_two_machines_from_a_list_of_hosts(folder: Path, losses: list[float]) -> None:
    (command,) = [line for line in OTHERS if line.startswith("deepspeed ")]
    (folder / "hostfile").write_text("node0 slots=1\nnode1 slots=1\n")
    file = "deepspeed/zero3.json"
    words = [*on_two_machines(command, 0), *words_for(file)]
    run_together(words, folder=folder, environment=environment(file, **STAND_INS))
    check_engine(folder, file, losses, ranks_here=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [ONE_MACHINE[BATCH_JOB], SEVERAL_MACHINES[BATCH_JOB]], ids=["one node", "two nodes"]
)
def test_a_batch_job_starts_one_launcher_on_each_node(command: str, folder: Path, losses: list[float]) -> None:
    words, nodes = in_a_batch_job(command)
    (file,) = [word.removeprefix("trainer_configs/") for word in words if word.endswith(".json")]
    slurm = {"SLURM_JOB_ID": str(port_of_job() - 29500), "SLURM_JOB_NODELIST": "node[0-1]", "SLURM_NNODES": str(nodes)}
    slurm |= {"SLURM_GPUS_ON_NODE": str(NUM_RANKS // nodes)}
    run_together([*words, *words_for(file)], folder=folder, environment=environment(file, **slurm, **STAND_INS))
    check_engine(folder, file, losses, ranks_here=NUM_RANKS // nodes)


def port_of_job() -> int:
    """A free port among those that the batch job takes, by its number."""
    for port in range(29500, 30500):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("None of the ports 29500 to 30499 is free.")


# What was compiled


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_offload_trains_with_the_adam_that_deepspeed_compiles(folder: Path, losses: list[float]) -> None:
    file = "deepspeed/zero2_offload.json"
    command = [*on_one_machine(ONE_MACHINE[file]), *words_for(file)]
    own = {"TORCH_EXTENSIONS_DIR": str(folder / "compiled")}
    run_together(command, folder=folder, environment=environment(file, **own), timeout=800)
    check_engine(folder, file, losses, ranks_here=2, adam="DeepSpeedCPUAdam")
    assert list(folder.glob("compiled/**/cpu_adam.so"))
