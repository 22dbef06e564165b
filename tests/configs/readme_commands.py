"""The commands of trainer_configs/README.md, and all that is changed of them to run on two processes of a CPU."""

import re
import shlex
from pathlib import Path

from documents import blocks_of, commands_of

CONFIGS = Path(__file__).parents[2] / "trainer_configs"
README = (CONFIGS / "README.md").read_text()

FILES = re.findall(r"^\| \[`(\S+)`\]\(\S+\) \| ", README.split("## Memory")[0], re.MULTILINE)
_BLOCKS = [block for block in blocks_of(README) if block.language == "bash"]
OTHERS = [command for block in _BLOCKS if block.file is None for command in commands_of(block.text)]


def _commands(title: str) -> dict[str, str]:
    """The command of each file: its own, or that of another file of its folder, whose place it takes."""
    (shown,) = [block.text for block in _BLOCKS if block.file == title]
    named = {_file_of(command): command for command in commands_of(shown)}
    commands = {}
    for file in FILES:
        folder = file.split("/")[0]
        other = next(each for each in named if each.startswith(f"{folder}/"))
        commands[file] = named.get(file) or named[other].replace(other, file)
    return commands


def _file_of(command: str) -> str:
    batch_job = re.match(r"sbatch .*?trainer_configs/(\S+\.sbatch)", command)
    found = batch_job or re.search(r"trainer_configs/(\S+)", command)
    assert found is not None, command
    return found[1]


# A file for several machines alone says so by its name.
ONE_MACHINE = {file: each for file, each in _commands("one machine").items() if "multi_node" not in file}
SEVERAL_MACHINES = _commands("two machines")

# All that is changed of a command: these options of its launcher, and `--bf16`, which is left out.
_SINGLE = {
    "torchrun": {"--nproc_per_node": "2", "--master_port": "{port}"},
    "accelerate": {"--num_processes": "2", "--main_process_port": "{port}", "--mixed_precision": "no"},
}
_ONE_OF_TWO = {
    "torchrun": {"--nproc_per_node": "1", "--rdzv_endpoint": "127.0.0.1:{port}"},
    "accelerate": {
        **{"--num_processes": "2", "--main_process_port": "{port}", "--mixed_precision": "no"},
        **{"--main_process_ip": "127.0.0.1", "--machine_rank": "{machine}"},
    },
    "deepspeed": {"--master_port": "{port}"},
}


def on_one_machine(command: str) -> list[str]:
    """The words of a command for two processes; the port is left open."""
    words = shlex.split(command)
    return _changed(words, _SINGLE[words[0]])


def on_two_machines(command: str, machine: int) -> list[str]:
    """The words of a command as they are given on one of two machines, which has one process."""
    words = shlex.split(command)
    options = {name: value.replace("{machine}", str(machine)) for name, value in _ONE_OF_TWO[words[0]].items()}
    return _changed(words, options)


def in_a_batch_job(command: str) -> tuple[list[str], int]:
    """What SLURM would run of an `sbatch` command, and on how many nodes."""
    sbatch, *words = _without_bf16(shlex.split(command))
    assert sbatch == "sbatch"
    nodes = 2
    if words[0] == "--nodes":
        nodes, words = int(words[1]), words[2:]
    else:
        assert f"#SBATCH --nodes={nodes}\n" in (CONFIGS.parent / words[0]).read_text()
    return ["bash", *words], nodes


def _changed(words: list[str], options: dict[str, str]) -> list[str]:
    words = _without_bf16(words)
    after_launcher = 2 if words[0] == "accelerate" else 1
    for name, value in options.items():
        if name in words:
            words[words.index(name) + 1] = value
        else:
            words[after_launcher:after_launcher] = [name, value]
    return words


def _without_bf16(words: list[str]) -> list[str]:
    place = words.index("--bf16") if "--bf16" in words else len(words)
    takes_value = words[place + 1 : place + 2] == ["true"]
    return words[:place] + words[place + 1 + takes_value :]
