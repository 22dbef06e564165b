"""A disk that fills up while a student is saved or a teacher is fetched: here files may not grow beyond a few bytes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import OWNER_TOKEN, Hub
from tiny_runs import make_teacher, tokenizer

SCRIPT = """
import resource, sys
from pathlib import Path
from trainer_runs import make_trainer
from hf_dwt import load_teacher

def fill(most):
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))

try:
    if sys.argv[1] == "pull":
        fill(5000)
        load_teacher("me/small")
    else:
        trainer = make_trainer(Path(sys.argv[2]), push_to_hub=True, hub_model_id="me/student", max_steps=1,
                               hub_token=sys.argv[3], hub_strategy="end", teacher=None)
        fill(5000)
        trainer.train()
except Exception as error:
    print(type(error).__name__, error)
    sys.exit(3)
"""


def run_until_full(what: str, folder: Path, *, xet: bool = False) -> str:
    environment = {**os.environ, "PYTHONPATH": f"{Path(__file__).parents[1]}:{os.environ.get('PYTHONPATH', '')}"}
    environment |= {"HF_HOME": str(folder / "home"), "HF_HUB_DISABLE_XET": str(int(not xet)), "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-c", SCRIPT, what, str(folder / "student"), OWNER_TOKEN]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 3, ran.stderr
    return ran.stdout


def test_a_student_that_could_not_be_saved_is_not_pushed(hub: Hub, tmp_path: Path) -> None:
    said = run_until_full("push", tmp_path)
    assert "File too large" in said
    assert hub.count("POST", "/commit/") == 0


@pytest.mark.parametrize("xet", [False, True])
def test_a_teacher_that_could_not_be_fetched_is_told(xet: bool, hub: Hub, tmp_path: Path) -> None:
    make_teacher().save_pretrained(tmp_path / "teacher")
    tokenizer().save_pretrained(tmp_path / "teacher")
    hub.add("me/small", tmp_path / "teacher")
    said = run_until_full("pull", tmp_path, xet=xet)
    assert said.startswith("OSError The teacher 'me/small' at commit ")
    assert "File too large" in said
