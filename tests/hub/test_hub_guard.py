"""The guards against connections elsewhere see what they say they see."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
from hub_guard import Wall, environment_without_proxies, in_a_network_of_its_own
from hub_server import Hub

ELSEWHERE = "192.0.2.1"
TESTS = Path(__file__).parents[1]


def seen(wall: Wall) -> str:
    """What the wall was asked for; it forgets it, so that the test may pass."""
    asked = " ".join(wall.asked)
    wall.asked.clear()
    return asked


def test_a_socket_of_python_is_stopped(hub: Hub) -> None:
    with socket.socket() as probe, pytest.raises(AssertionError, match="has tried to connect"):
        probe.connect((ELSEWHERE, 80))


def test_the_client_of_the_hub_is_sent_to_the_wall(hub: Hub, wall: Wall) -> None:
    answer = huggingface_hub.get_session().get(f"http://{ELSEWHERE}/model", timeout=5)
    assert answer.status_code == 403
    assert f"GET http://{ELSEWHERE}/model" in seen(wall)


def test_a_process_that_a_test_starts_is_sent_to_the_wall(hub: Hub, wall: Wall) -> None:
    subprocess.run(["curl", "-s", f"https://{ELSEWHERE}/"], timeout=30, check=False)
    assert f"CONNECT {ELSEWHERE}:443" in seen(wall)


def test_the_xet_client_is_sent_to_the_wall(hub: Hub, wall: Wall, tmp_path: Path) -> None:
    script = f"""
import hf_xet
with hf_xet.XetSession().new_file_download_group(
    endpoint="http://{ELSEWHERE}", token="xet", token_expiry_unix_secs=9999999999
) as group:
    group.start_download_file(hf_xet.XetFileInfo("0" * 64, 10), {str(tmp_path / "content")!r})
"""
    subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60, check=False)
    assert f"GET http://{ELSEWHERE}/v2/reconstructions/" in seen(wall)


def test_asking_elsewhere_fails_the_test(hub: Hub, wall: Wall) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(AssertionError, match="asked for other places"):
        with wall.around(patch):
            subprocess.run(["curl", "-s", f"http://{ELSEWHERE}/"], timeout=30, check=False)


def alone(command: list[str], **settings: object) -> "subprocess.CompletedProcess[str]":
    """Run a command where loopback is the only network."""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("a network of its own needs unshare and ip")
    allowed = subprocess.run(in_a_network_of_its_own(["true"]), capture_output=True, text=True, timeout=30, check=False)
    if allowed.returncode:
        pytest.skip(f"this kernel makes no network of its own: {allowed.stderr.strip()}")
    path = f"{TESTS}:{os.environ.get('PYTHONPATH', '')}"
    environment = environment_without_proxies() | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "0"}
    return subprocess.run(
        in_a_network_of_its_own(command), env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_where_loopback_is_the_only_network_nothing_else_can_be_reached() -> None:
    ran = alone(["curl", "-s", "-m", "5", f"http://{ELSEWHERE}/"])
    assert ran.returncode == 7, "no route, and not a timeout"


@pytest.mark.parametrize("way", ["xet", "lfs"])
def test_a_round_trip_needs_no_other_network_than_loopback(way: str, tmp_path: Path) -> None:
    script = f"""
import os, sys
os.environ["HF_HUB_DISABLE_XET"] = str(int({way!r} == "lfs"))
import hub_place
hub_place.HUB.start()
os.environ["HF_TOKEN"] = hub_place.TOKEN
import round_trip
from pathlib import Path
round_trip.main(Path({str(tmp_path / "student")!r}))
"""
    path = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})"
    ran = alone([sys.executable, "-c", f"{path}\n{script}"])
    assert ran.returncode == 0, ran.stderr
    assert "round trip done" in ran.stdout
