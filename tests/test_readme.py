"""What the README shows works, word by word."""

import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from unittest.mock import create_autospec

import pytest
from documents import blocks_of, commands_of, inline_commands
from tiny_runs import WORDS, make_teacher, tokenizer

from hf_dwt.cli import demo, evaluate, main
from hf_dwt.finetuning.suites import suite_names

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PYTHON_BLOCKS = [block.text for block in blocks_of(README) if block.language == "python"]


def commands() -> list[str]:
    """Every command of the shell blocks and of the running text."""
    shown = [command for block in blocks_of(README) if block.language == "bash" for command in commands_of(block.text)]
    return sorted({*shown, *(each for each in inline_commands(README) if not each.startswith("python "))})


def causal(block: str) -> str:
    """The example with the class that the README names for causal students, and models of that kind."""
    names = {"AutoModelForMaskedLM": "AutoModelForCausalLM", "me/bert-4-layers": "me/gpt2-2-layers"}
    names |= {'"student"': '"causal-student"'}
    for name, other in names.items():
        assert name in block
        block = block.replace(name, other)
    return block


# Users with a GPU want pinned memory; without one PyTorch says that it does nothing.
@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set")
def test_every_python_block_runs_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # The teachers and the text that the README assumes, in small.
    for name, architecture in {"me/bert-4-layers": "masked", "me/gpt2-2-layers": "causal"}.items():
        make_teacher(architecture).save_pretrained(name)
        tokenizer().save_pretrained(name)
    Path("corpus").mkdir()
    sentences = [" ".join((WORDS * 3)[start : start + 14]) for start in range(len(WORDS))]
    Path("corpus/words.txt").write_text("\n".join(sentences * 20))
    blocks = [*PYTHON_BLOCKS, causal(PYTHON_BLOCKS[0])]
    scopes: list[dict[str, object]] = [{} for _ in blocks]
    for block, scope in zip(blocks, scopes, strict=True):
        exec(block, scope)
    assert ["trainer" in scope for scope in scopes] == [True, False, True]
    for folder in ("student", "causal-student"):
        assert list(Path(folder).glob("checkpoint-*/model.safetensors"))


def test_the_readme_shows_the_commands_that_are_tried_below() -> None:
    assert {command.split()[0] for command in commands()} == {
        *("git", "cd", "pip", "make", "hf-dwt"),
        *("accelerate", "torchrun"),
    }
    assert sum(command.startswith("hf-dwt train") for command in commands()) >= 3


@pytest.mark.parametrize("command", [each for each in commands() if each.startswith("hf-dwt train")])
def test_every_recipe_that_is_shown_passes_a_dry_run(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("trainer_configs").symlink_to(ROOT / "trainer_configs")
    # What the command before it leaves; a dry run reads the configuration alone.
    make_teacher("causal").save_pretrained("speeches-teacher")
    arguments = shlex.split(command)[1:]
    # As much as that teacher reads.
    assert main([*arguments, "--dry-run", "--length", "16"]) == 0
    assert "What would be done" in capsys.readouterr().out


@pytest.mark.parametrize("command", [each for each in commands() if each.startswith("hf-dwt demo")])
def test_every_demo_that_is_shown_can_be_called_so(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    called = create_autospec(demo.demo)
    monkeypatch.setattr(demo, "demo", called)
    assert main(shlex.split(command)[1:]) == 0
    called.assert_called_once()


@pytest.mark.parametrize("command", [each for each in commands() if each.startswith("hf-dwt evaluate")])
def test_every_evaluation_that_is_shown_can_be_called_so(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    called = create_autospec(evaluate.evaluate)
    monkeypatch.setattr(evaluate, "evaluate", called)
    assert main(shlex.split(command)[1:]) == 0
    called.assert_called_once()
    assert called.call_args.kwargs["suite"] in suite_names()


def test_an_option_that_does_not_exist_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "demo", create_autospec(demo.demo))
    with pytest.raises(SystemExit):
        main(["demo", "--causally"])


@pytest.mark.parametrize("command", [each for each in commands() if each.startswith("make")])
def test_every_make_target_that_is_shown_is_there(command: str) -> None:
    tried = subprocess.run([*shlex.split(command), "-n"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert tried.returncode == 0, tried.stderr
    given = re.findall(r"ARGS=(\S+)", command)
    assert all(f"hf-dwt demo {arguments}" in tried.stdout for arguments in given)


def test_the_installation_names_files_and_extras_that_are_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (install,) = [shlex.split(command) for command in commands() if command.startswith("pip ")]
    assert install[:3] == ["pip", "install", "-c"]
    assert install[4:-1] == ["-e"]
    assert (ROOT / install[3]).is_file()
    extras = re.fullmatch(r"\.\[(.+)\]", install[-1])
    assert extras is not None
    assert set(extras[1].split(",")) <= project["optional-dependencies"].keys()
    assert project["scripts"].keys() == {"hf-dwt"}
    (clone,) = [shlex.split(command) for command in commands() if command.startswith("git ")]
    assert f"cd {clone[-1]}" in commands()


def test_the_readme_is_short_and_to_the_point() -> None:
    lines = README.splitlines()
    assert len(lines) <= 200
    assert lines.index("## Install") < 25
    assert lines.index("## Use") < 40
