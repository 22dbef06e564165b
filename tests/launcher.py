"""Runs a script on two ranks of this machine with torchrun, or launchers side by side, within a limit of time."""

import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

NUM_RANKS = 2


class RanksFailed(RuntimeError):
    """A rank failed or was not done in time; the text holds what both ranks have printed."""


def run_on_two_ranks(
    script: str | Path,
    arguments: Sequence[str | Path] = (),
    timeout: float = 180.0,
    num_ranks: int = NUM_RANKS,
    accelerate_config: Path | None = None,
) -> str:
    """Run `script` in two processes that talk over gloo, or in `num_ranks`, and return what they printed.

    In the script `use_cpu=True` in the training arguments is enough to join the ranks. No process outlives the call.

    Args:
        script: A Python file.
        arguments: Its command line.
        timeout: Seconds, > 0, after which all ranks are ended.
        num_ranks: How many processes.
        accelerate_config: Start them by `accelerate launch` with this configuration, not by torchrun.

    Raises:
        RanksFailed: If a rank fails or the time is over.
    """
    launch = ["torch.distributed.run", "--nproc_per_node", str(num_ranks), "--master_port", str(_free_port())]
    if accelerate_config is not None:
        launch = ["accelerate.commands.launch", "--config_file", str(accelerate_config)]
        launch += ["--main_process_port", str(_free_port())]
    command = [sys.executable, "-m", *launch, str(script), *map(str, arguments)]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        launched = subprocess.Popen(command, env=_environment(), stdout=output, stderr=subprocess.STDOUT)
        try:
            code = str(launched.wait(timeout))
        except subprocess.TimeoutExpired:
            code = f"none within {timeout:g} seconds"
        finally:
            _end(launched)
        output.seek(0)
        said = output.read()
    if code != "0":
        raise RanksFailed(f"{Path(script).name} failed on {num_ranks} ranks. Exit code: {code}. Output:\n{said}")
    return said


def run_together(*commands: Sequence[str], folder: Path, environment: Mapping[str, str], timeout: float = 180.0) -> str:
    """Run commands side by side, as on so many machines, and return what they printed; none outlives the call.

    Args:
        commands: Programs are looked up next to this Python first; `{port}` in a word is a free port, the same in all.
        folder: Where they run.
        environment: On top of this process's own.
        timeout: Seconds, > 0, after which all are ended.

    Raises:
        RanksFailed: If one of them fails, which ends the others, or the time is over.
    """
    search = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    settings = {**_environment(), "PATH": search, **environment}
    running: list[subprocess.Popen[str]] = []
    port, until = str(_free_port()), time.monotonic() + timeout
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        to_file = {"stdout": output, "stderr": subprocess.STDOUT, "text": True}
        try:
            for command in commands:
                path = shutil.which(command[0], path=settings["PATH"])
                assert path is not None, f"There is no {command[0]}."
                words = [path, *(word.replace("{port}", port) for word in command[1:])]
                running.append(subprocess.Popen(words, cwd=folder, env=settings, **to_file))
            while None in (codes := [each.poll() for each in running]) and not any(codes) and time.monotonic() < until:
                time.sleep(0.1)
        finally:
            _end_all(running)
        output.seek(0)
        said = output.read()
    if any(codes) or None in codes:
        raise RanksFailed(f"{shlex.join(commands[0])}\nExit codes: {codes}. Output:\n{said}")
    return said


def _end_all(launched: Sequence[subprocess.Popen[str]]) -> None:
    """End what still runs, and kill what that has started and left behind."""
    for each in launched:
        if each.poll() is None:
            started = psutil.Process(each.pid).children(recursive=True)
            _end(each)
            for orphan in started:
                with suppress(psutil.NoSuchProcess):
                    orphan.kill()
            psutil.wait_procs(started)


def _environment() -> dict[str, str]:
    offline = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    folders = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, **offline, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": folders}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _end(launched: subprocess.Popen[str], patience: float = 60.0) -> None:
    """End torchrun, which ends its ranks first, as they are in sessions of their own; kill them all if it does not."""
    launched.terminate()
    try:
        launched.wait(patience)
    except subprocess.TimeoutExpired:
        ranks = psutil.Process(launched.pid).children(recursive=True)
        launched.kill()
        for rank in ranks:
            with suppress(psutil.NoSuchProcess):
                rank.kill()
        launched.wait()
        psutil.wait_procs(ranks)
