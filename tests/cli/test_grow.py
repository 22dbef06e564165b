"""`hf-dwt grow`, from the command to a student that plain transformers loads."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from hf_dwt import GrowthPlan, from_weak_teacher
from hf_dwt.cli import main


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    size = {"vocab_size": 50, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 32}
    GPT2LMHeadModel(GPT2Config(**size, bos_token_id=0, eos_token_id=0)).save_pretrained(tmp_path / "teacher")
    return tmp_path / "teacher"


def test_a_student_is_grown_saved_with_its_plan_and_grown_again_bit_for_bit(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "student"
    options = ["--n-embd", "48", "--num-hidden-layers", "3", "-o", str(folder)]
    assert main(["grow", str(teacher), *options]) == 0
    assert "equal to the teacher" in capsys.readouterr().out
    student = AutoModelForCausalLM.from_pretrained(folder)
    assert (student.config.n_embd, student.config.n_layer, student.config.n_head) == (48, 3, 3)
    again = from_weak_teacher(teacher, GrowthPlan.load(folder))
    saved = student.state_dict()
    assert all(torch.equal(weight, saved[name]) for name, weight in again.state_dict().items())


def test_a_dry_run_prints_the_plan_and_writes_nothing(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["grow", str(teacher), "--n-layer", "4", "--dry-run", "-o", str(tmp_path / "student")]) == 0
    assert "layers come from: 0 0= 1 1=" in capsys.readouterr().out
    assert not (tmp_path / "student").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--n-emb", "48", "-o", "new"], "Did you mean `n_embd`?"),
        (["--n-embd", "16", "-o", "new"], "less than the teacher's 32"),
        (["--n-embd", "48"], "--output"),
        (["--n-embd", "48", "-o", "new", "--method", "magic"], "There is no method 'magic'"),
    ],
)
def test_what_cannot_be_grown_is_told_in_one_line(
    options: list[str],
    message: str,
    teacher: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["grow", str(teacher), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
