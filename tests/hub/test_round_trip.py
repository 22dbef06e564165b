"""The round trip of a student, on the test Hub and, by opt-in, on a real one.

HF_DWT_TEST_TOKEN (and HF_DWT_TEST_ENDPOINT, by default the public Hub) let it run there, in a private repository that
is removed at the end.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import round_trip
from hub_server import OWNER_TOKEN, Hub


def go_round(folder: Path, endpoint: str, token: str) -> str:
    path = f"{Path(__file__).parents[1]}:{os.environ.get('PYTHONPATH', '')}"
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "0", "HF_HOME": str(folder / "home")}
    environment |= {"HF_ENDPOINT": endpoint, "HF_TOKEN": token}
    command = [sys.executable, round_trip.__file__, str(folder / "student")]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert ran.returncode == 0, ran.stderr
    assert token not in ran.stdout + ran.stderr
    return ran.stdout


def test_on_the_test_hub(hub: Hub, tmp_path: Path) -> None:
    assert "round trip done" in go_round(tmp_path, hub.url, OWNER_TOKEN)
    assert hub.repositories == {}
    assert OWNER_TOKEN.encode() not in b"".join(each.body for each in hub.requests)


def test_on_a_real_hub(tmp_path: Path) -> None:
    token = os.environ.get("HF_DWT_TEST_TOKEN")
    if not token:
        pytest.skip("a real Hub is used only with HF_DWT_TEST_TOKEN")
    endpoint = os.environ.get("HF_DWT_TEST_ENDPOINT", "https://huggingface.co")
    assert "round trip done" in go_round(tmp_path, endpoint, token)
