"""Nothing that the launcher starts outlives it."""

import subprocess
import sys
from pathlib import Path

import launcher
import psutil
import pytest

# Stands for a torchrun that hangs: it does not listen, and its rank is in a session of its own.
DEAF = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
rank = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
print(rank.pid, flush=True)
time.sleep(300)
"""

# Ends when it is told, without what it has started.
LEAVES_ANOTHER = """
import subprocess, sys
with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"]) as other:
    print(other.pid, flush=True)
"""


def start(program: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)


def test_what_does_not_end_when_it_is_told_is_killed_with_its_ranks() -> None:
    with start(DEAF) as deaf:
        assert deaf.stdout is not None
        rank = psutil.Process(int(deaf.stdout.readline()))
        try:
            launcher._end(deaf, patience=0.2)
            assert deaf.poll() is not None
            assert not rank.is_running() or rank.status() == psutil.STATUS_ZOMBIE
        finally:
            deaf.kill()
            if rank.is_running():
                rank.kill()


@pytest.mark.parametrize("program", ["pass", "import time; time.sleep(300)"], ids=["over", "running"])
def test_what_listens_is_ended_without_being_killed(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with start(program) as launched:
        if program == "pass":
            launched.wait(30)
        monkeypatch.setattr(launched, "kill", None)
        launcher._end(launched, patience=30)
        assert launched.poll() is not None


def test_commands_side_by_side_are_all_waited_for(tmp_path: Path) -> None:
    commands = [[sys.executable, "-c", f"import time; time.sleep({seconds}); print({seconds})"] for seconds in (0, 1)]
    assert sorted(launcher.run_together(*commands, folder=tmp_path, environment={}).split()) == ["0", "1"]


@pytest.mark.parametrize(("ending", "timeout"), [("sys.exit(3)", 100), ("time.sleep(300)", 4)], ids=["fails", "hangs"])
def test_a_command_that_fails_or_hangs_ends_those_beside_it_and_what_they_have_started(
    ending: str, timeout: int, tmp_path: Path
) -> None:
    commands = [
        [sys.executable, "-c", program] for program in (LEAVES_ANOTHER, f"import sys, time; time.sleep(2); {ending}")
    ]
    with pytest.raises(launcher.RanksFailed, match=r"Exit codes: \[None, (3|None)\]") as failure:
        launcher.run_together(*commands, folder=tmp_path, environment={}, timeout=timeout)
    left = int(str(failure.value).split()[-1])
    assert not psutil.pid_exists(left) or psutil.Process(left).status() == psutil.STATUS_ZOMBIE
