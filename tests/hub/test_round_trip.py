"""The tests without faults run on any Hub: here on one that is a process of its own, as they do on a real one.

    HF_DWT_TEST_TOKEN=... [HF_DWT_TEST_ENDPOINT=https://...] python -m pytest tests/hub

runs them there, in private repositories that are removed at the end, and skips what needs the test Hub's log or faults.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import hub_server
import pytest
import round_trip
from hub_place import IS_REAL
from hub_server import OWNER_TOKEN, Hub

TESTS = Path(__file__).parents[1]


def environment(**more: str) -> dict[str, str]:
    path = f"{TESTS}:{os.environ.get('PYTHONPATH', '')}"
    return {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "0", **more}


def test_a_student_goes_round(hub: Hub, tmp_path: Path) -> None:
    own = {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": hub.url, "HF_TOKEN": OWNER_TOKEN}
    command = [sys.executable, round_trip.__file__, str(tmp_path / "student")]
    ran = subprocess.run(command, env=environment(**own), capture_output=True, text=True, timeout=240, check=False)
    assert ran.returncode == 0, ran.stderr
    assert OWNER_TOKEN not in ran.stdout + ran.stderr
    assert "round trip done" in ran.stdout
    assert hub.repositories == {}
    assert OWNER_TOKEN.encode() not in b"".join(each.body for each in hub.requests)


@pytest.mark.slow
@pytest.mark.skipif(IS_REAL, reason="that is how this very run was started")
def test_the_tests_without_faults_run_on_another_hub(tmp_path: Path) -> None:
    serving = [sys.executable, hub_server.__file__, str(tmp_path / "xet")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(serving, env=environment(), **pipes) as server:
        try:
            url = server.stdout.readline().strip()
            files = [str(Path(__file__).parent / name) for name in ("test_pulling.py", "test_pushing.py")]
            command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files, "-k", "not lfs"]
            ran = subprocess.run(
                command,
                env=environment(HF_DWT_TEST_TOKEN=OWNER_TOKEN, HF_DWT_TEST_ENDPOINT=url),
                cwd=TESTS.parent,
                capture_output=True,
                text=True,
                timeout=200,
                check=False,
            )
        finally:
            server.stdin.close()
            server.wait(30)
    assert ran.returncode == 0, ran.stdout
    passed, skipped = (int(re.search(rf"(\d+) {word}", ran.stdout)[1]) for word in ("passed", "skipped"))
    assert passed >= 25
    assert skipped == 1, "what would put the token somewhere"
