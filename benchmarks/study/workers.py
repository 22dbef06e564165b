"""Processes that carry out cells: each is pinned to a core, computes with one thread, and ends with its parent."""

import json
import multiprocessing
import os
import shlex
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.study.running import Job, carry_out_job, end_when, pin

# Read when the libraries are imported, which the server of processes does once for all of them.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


class Worker:
    """A process that calls a function.

    Args:
        function: Of a module, so that another process finds it.
        argument: That it is given.
        log: File for what it prints.

    Attributes:
        connection: Is ready when it has finished or died.
    """

    def __init__(self, function: Callable[[Any], Any], argument: Any, log: Path) -> None:
        self.log = log
        context = _server_of_processes()
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(function, argument, str(log), theirs))
        self._process.start()
        theirs.close()

    def result(self) -> dict[str, Any] | str:
        """What the function returned, or in words what went wrong."""
        try:
            answer: dict[str, Any] | str = self.connection.recv()
        except (EOFError, OSError):
            self._process.join()
            answer = f"its process died, with exit code {self._process.exitcode}"
        self._process.join()
        self.connection.close()
        return answer

    def stop(self) -> None:
        """End it; nothing of it is kept."""
        self._process.kill()
        self._process.join()
        self.connection.close()


def call_in_process(function: Callable[[Any], dict[str, Any]], argument: Any, log: Path) -> dict[str, Any]:
    """Call a function in a process of its own, and wait for it.

    Raises:
        RuntimeError: If it fails.
    """
    worker = Worker(function, argument, log)
    try:
        answer = worker.result()
    except BaseException:
        worker.stop()
        raise
    if isinstance(answer, str):
        raise RuntimeError(f"{answer} (see {log})")
    log.unlink(missing_ok=True)
    return answer


def ready(workers: list[Worker], seconds: float | None = None) -> list[Worker]:
    """Wait until some have finished, or so long."""
    connections = wait([worker.connection for worker in workers], seconds)
    return [worker for worker in workers if worker.connection in connections]


def usable_cores() -> list[int]:
    """Numbers of the cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else list(range(os.cpu_count() or 1))


def _server_of_processes() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.study.running"])
    os.environ.update(_ONE_THREAD)
    return context


def run_job(job: Job) -> dict[str, Any]:
    """Carry a cell out, in this process or in those that the study launches for it."""
    if job.launch is not None:
        return _launched(job)
    pin(job.core)
    return carry_out_job(job)


def _work(function: Callable[[Any], Any], argument: Any, log: str, connection: Connection) -> None:
    # Whoever interrupts the parent stops us through it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_when(connection.recv)
    with Path(log).open("w") as file, redirect_stdout(file), redirect_stderr(file):
        try:
            answer: dict[str, Any] | str = function(argument)
        except Exception as error:  # told by the parent
            traceback.print_exc()
            answer = f"{type(error).__name__}: {' '.join(str(error).split())}"
    connection.send(answer)


def _launched(job: Job) -> dict[str, Any]:
    """Have several processes do it, started as the study says; they end when our end of their input is closed."""
    with TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{kind}.json" for kind in ("job", "answer")]
        paths[0].write_text(json.dumps(asdict(replace(job, answer=str(paths[1])))))
        command = [*shlex.split(str(job.launch)), "-m", "benchmarks.study.running", str(paths[0])]
        environment = {key: value for key, value in os.environ.items() if key not in _ONE_THREAD}
        output = {"stdout": sys.stdout.fileno(), "stderr": sys.stdout.fileno()}
        with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, **output) as started:
            if started.wait() != 0:
                raise RuntimeError(f"`{job.launch}` ended with {started.returncode}")
        line: dict[str, Any] = json.loads(paths[1].read_text())
    return line
