"""Each shipped configuration is read by what consumes it, and says what its name says."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DistributedType
from readme_commands import CONFIGS, ONE_MACHINE, OTHERS, SEVERAL_MACHINES
from tiny_runs import make_student
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from hf_dwt import DWTTrainingArguments

ZERO = sorted(path.stem for path in CONFIGS.glob("deepspeed/*"))
ACCELERATE = {
    "ddp": DistributedType.MULTI_GPU,
    "fsdp2": DistributedType.FSDP,
    "deepspeed_zero2": DistributedType.DEEPSPEED,
    "deepspeed_zero3": DistributedType.DEEPSPEED,
    "multi_node_zero3": DistributedType.DEEPSPEED,
}


@pytest.fixture
def _forgets_deepspeed() -> Iterator[None]:
    """No later test loads its models as this one's configuration says."""
    yield
    unset_hf_deepspeed_config()


def filled_in(name: str, folder: Path, **settings: Any) -> dict[str, Any]:
    """What DeepSpeed is given: the file, with what transformers fills in from the arguments and the student."""
    own = {"use_cpu": True, "report_to": "none", "deepspeed": str(CONFIGS / f"deepspeed/{name}.json")}
    args = DWTTrainingArguments(str(folder), **own, **settings)
    args.hf_deepspeed_config.trainer_config_finalize(args, make_student(), num_training_steps=10)
    content: dict[str, Any] = args.hf_deepspeed_config.config
    return content


# DeepSpeed


def test_there_is_a_file_for_each_stage() -> None:
    assert ZERO == ["zero0", "zero1", "zero2", "zero2_offload", "zero3", "zero3_offload"]


@pytest.mark.usefixtures("_forgets_deepspeed")
@pytest.mark.parametrize("name", ZERO)
def test_deepspeed_reads_its_file_as_the_arguments_fill_it_in(name: str, tmp_path: Path) -> None:
    from deepspeed.runtime.config import DeepSpeedConfig

    settings = {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 5, "max_grad_norm": 0.25}
    config = DeepSpeedConfig(filled_in(name, tmp_path, bf16=True, **settings))
    assert config.zero_optimization_stage == int(name.removeprefix("zero")[0])
    assert config.train_micro_batch_size_per_gpu == 3
    assert config.gradient_accumulation_steps == 5
    assert config.gradient_clipping == 0.25
    assert config.bfloat16_config.enabled
    assert not config.float16_config.enabled
    offloaded = [config.zero_config.offload_optimizer, config.zero_config.offload_param]
    expected = {"zero2_offload": ["cpu", None], "zero3_offload": ["cpu", "cpu"]}.get(name, [None, None])
    assert [each and each.device for each in offloaded] == expected


@pytest.mark.usefixtures("_forgets_deepspeed")
@pytest.mark.parametrize("name", [name for name in ZERO if name.endswith("offload")])
def test_offloaded_adam_takes_its_settings_from_the_arguments(name: str, tmp_path: Path) -> None:
    settings = {"learning_rate": 3e-4, "adam_beta2": 0.98, "adam_epsilon": 1e-6, "weight_decay": 0.1}
    adam = filled_in(name, tmp_path, **settings)["optimizer"]
    assert adam["params"] == {"lr": 3e-4, "betas": [0.9, 0.98], "eps": 1e-6, "weight_decay": 0.1}


@pytest.mark.usefixtures("_forgets_deepspeed")
@pytest.mark.parametrize("name", ZERO)
def test_nothing_is_left_to_be_filled_in(name: str, tmp_path: Path) -> None:
    assert '"auto"' in (CONFIGS / f"deepspeed/{name}.json").read_text()
    assert '"auto"' not in json.dumps(filled_in(name, tmp_path))


# accelerate


def test_there_is_a_file_for_each_way_of_accelerate() -> None:
    assert {path.stem for path in CONFIGS.glob("accelerate/*")} == ACCELERATE.keys()


@pytest.mark.parametrize("name", ACCELERATE)
def test_accelerate_reads_its_file(name: str) -> None:
    config = load_config_from_file(str(CONFIGS / f"accelerate/{name}.yaml"))
    assert config.distributed_type == ACCELERATE[name]
    assert config.mixed_precision == "bf16"
    machines = 2 if name.startswith("multi_node") else 1
    assert (config.num_machines, config.num_processes) == (machines, 8 * machines)
    if config.distributed_type == DistributedType.DEEPSPEED:
        assert config.deepspeed_config["zero_stage"] == int(name[-1])
    if config.distributed_type == DistributedType.FSDP:
        assert config.fsdp_config["fsdp_version"] == 2


# The README


def test_every_file_has_its_commands_in_the_readme() -> None:
    folders = ("deepspeed", "accelerate", "slurm")
    files = {str(path.relative_to(CONFIGS)) for folder in folders for path in (CONFIGS / folder).iterdir()}
    assert SEVERAL_MACHINES.keys() == files
    assert files - ONE_MACHINE.keys() == {"accelerate/multi_node_zero3.yaml"}
    for file, command in [*ONE_MACHINE.items(), *SEVERAL_MACHINES.items()]:
        assert f" trainer_configs/{file} " in f"{command} "


@pytest.mark.parametrize("commands", [ONE_MACHINE, SEVERAL_MACHINES], ids=["one machine", "two machines"])
def test_the_files_of_deepspeed_are_launched_alike_so_that_trying_one_says_it_of_all(commands: dict[str, str]) -> None:
    assert (
        len({command.replace(f"{name}.json", "") for name in ZERO for command in [commands[f"deepspeed/{name}.json"]]})
        == 1
    )


def test_the_batch_job_is_a_script_that_bash_understands() -> None:
    subprocess.run(["bash", "-n", CONFIGS / "slurm/train.sbatch"], check=True)


def test_further_commands_are_shown_for_recipes_and_for_a_list_of_hosts() -> None:
    assert [command.split()[0] for command in OTHERS] == ["torchrun", "accelerate", "deepspeed"]
