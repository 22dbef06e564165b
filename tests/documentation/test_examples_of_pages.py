"""Every example of the site is run, with tiny stand-ins for models and text and in few steps; see `stand_ins`."""

import inspect
import re
import runpy
import shlex
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from unittest.mock import create_autospec

import pytest
import yaml
from documents import Block, blocks_of, commands_of, inline_commands
from hub_place import TOKEN
from hub_server import Hub
from huggingface_hub import HfApi
from stand_ins import OPTIONS, ROOT, prepare, put_model, smaller

from hf_dwt import DWTTrainingArguments, weighting
from hf_dwt.cli import demo, evaluate, main
from hf_dwt.cli.recipe import _SECTIONS
from hf_dwt.finetuning.suites import suite_names
from hf_dwt.remapping.depth import DEPTH_METHODS
from hf_dwt.remapping.width import WIDTH_METHODS
from hf_dwt.sections import check_section

DOCS = ROOT / "docs"
PAGES = {path.relative_to(DOCS).as_posix(): path.read_text() for path in sorted(DOCS.rglob("*.md"))}
WITH_EXAMPLES = [page for page, text in PAGES.items() if blocks_of(text)]
# More than this would be pages whose examples nobody has tried.
MOST_NOT_RUN = 2


@pytest.fixture(autouse=True)
def _registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a page registers is forgotten after it."""
    monkeypatch.setattr(weighting, "_policies", dict(weighting._policies))
    for registry in (DEPTH_METHODS, WIDTH_METHODS):
        for name in set(registry) - registry._built_in:
            monkeypatch.delitem(registry, name)


# Users with a GPU want pinned memory; without one PyTorch says that it does nothing. The other one is peft's to mend.
@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set")
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.* is deprecated:FutureWarning")
@pytest.mark.parametrize("page", [page for page in WITH_EXAMPLES if page != "hub.md"])
def test_the_examples_of_a_page_run_one_after_the_other(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    prepare(page)
    run_page(page, monkeypatch)


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set")
def test_the_examples_of_the_page_on_the_hub_run_against_a_hub(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    prepare("hub.md")
    api = HfApi()
    api.create_repo("me/bert-4-layers")
    with tempfile.TemporaryDirectory() as folder:
        put_model(folder)
        api.upload_folder(repo_id="me/bert-4-layers", folder_path=folder)
    api.create_tag("me/bert-4-layers", tag="v1")
    scope = run_page("hub.md", monkeypatch)
    assert scope["record"]["teacher"]["commit"] == api.model_info("me/bert-4-layers").sha
    assert next(each.title for each in api.list_repo_commits("me/student")) == "Evaluate again"


def run_page(page: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Run the blocks of a page in their order; returns what its Python has defined."""
    scope: dict[str, object] = {}
    for block in blocks_of(PAGES[page]):
        where = f"docs/{page}:{block.line}"
        if block.reason is not None:
            print(f"{where} is not run: {block.reason}")
        elif block.file is not None:
            Path(block.file).write_text(block.text)
        elif block.language == "python":
            # Blank lines before it make errors name the line of the page.
            exec(compile("\n" * block.line + smaller(block.text), where, "exec"), scope)
        elif block.language == "bash":
            for command in commands_of(block.text):
                run_command(command, monkeypatch)
    return scope


def run_command(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a command in small or, where it sets up or launches, look whether what it names is there."""
    program, *words = shlex.split(smaller(command))
    match program:
        case "hf-dwt":
            _run_hf_dwt(words, monkeypatch)
        case "python":
            monkeypatch.setattr(sys, "argv", [*words, "--use_cpu", "true", "--report_to", "none"])
            runpy.run_path(words[0], run_name="__main__")
        case "torchrun" | "accelerate":
            # These are launched from there, see tests/configs.
            shown = blocks_of((ROOT / "trainer_configs/README.md").read_text())
            assert command in [each for block in shown if block.language == "bash" for each in commands_of(block.text)]
        case "pip":
            _look_for_extras(words)
        case "git" | "cd":
            assert command in (ROOT / "README.md").read_text()
        case "make":
            subprocess.run(["make", "-n", *words], cwd=ROOT, check=True, capture_output=True)
        case _:
            pytest.fail(f"Nobody knows how to try {command!r}.")


def _run_hf_dwt(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if words[0] == "demo" or (words[0] == "evaluate" and not {*words} & {"suite.yaml"}):
        # They fetch what they need; the tests of the command line run them on stand-ins.
        module = {"demo": demo, "evaluate": evaluate}[words[0]]
        called = create_autospec(vars(module)[words[0]])
        monkeypatch.setattr(module, words[0], called)
        assert main(words) == 0
        called.assert_called_once()
        assert called.call_args.kwargs.get("suite", "demo") in suite_names()
        return
    if "--dry-run" in words and words[0] == "train":
        words = [*words, "--length", "16"]  # as much as the small models read
    elif words[0] in ("train", "assess"):
        words = [*words, *shlex.split(OPTIONS[Path(words[1]).name])]
    assert main(words) == 0


def _look_for_extras(words: list[str]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert words[:3] == ["install", "-c", "constraints.txt"]
    named = re.fullmatch(r"\.\[(.+)\]", words[-1])
    assert named is not None
    assert set(named[1].split(",")) <= extras.keys()


# What else a page says


def test_nearly_all_examples_are_run() -> None:
    left = [(page, block) for page, text in PAGES.items() for block in blocks_of(text) if block.reason is not None]
    for page, block in left:
        print(f"docs/{page}:{block.line} is not run: {block.reason}")
    assert len(left) <= MOST_NOT_RUN


def test_every_block_is_of_a_language_that_is_tried() -> None:
    languages = {block.language for text in PAGES.values() for block in blocks_of(text)}
    assert languages <= {"python", "bash", "yaml"}


def test_parts_of_recipes_have_the_keys_of_recipes() -> None:
    parts = [block for text in PAGES.values() for block in blocks_of(text) if block.language == "yaml"]
    for part in (yaml.safe_load(block.text) for block in parts if block.file is None):
        for section, values in part.items():
            if section == "arguments":
                DWTTrainingArguments(**values)
            else:
                check_section(section, values, _SECTIONS[section])


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_the_running_text_name_what_is_there(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in inline_commands(PAGES[page]):
        program, *words = shlex.split(command)
        options = {word for word in words if word.startswith("--")}
        if program == "make":
            assert f"{words[0]}:" in (ROOT / "Makefile").read_text()
        elif program == "python":
            assert options <= _options_of_module(words[1:])
        elif words[0] != "COMMAND":
            with pytest.raises(SystemExit):
                main([words[0], "--help"])
            assert options <= set(re.findall(r"--[\w-]+", capsys.readouterr().out)), command


def _options_of_module(words: list[str]) -> set[str]:
    """Options that the source of `python -m` knows; what it is told to read has to be there."""
    if words[0] == "pytest":
        assert all((ROOT / word).exists() for word in words[1:])
        return set()
    path = ROOT / words[0].replace(".", "/")
    program = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
    source = program.read_text() + (ROOT / "benchmarks/measuring.py").read_text()
    return set(re.findall(r'"(--[\w-]+)"', source))


def test_an_example_that_fails_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(PAGES, "wrong.md", "```python\nfrom hf_dwt import DWTrainer\n```\n")
    with pytest.raises(ImportError, match="DWTrainer"):
        run_page("wrong.md", monkeypatch)
    monkeypatch.setitem(PAGES, "wrong.md", "```bash\nhf-dwt demo --causally\n```\n")
    with pytest.raises(SystemExit):
        run_page("wrong.md", monkeypatch)


def test_a_block_knows_its_line_its_file_and_why_it_is_not_run() -> None:
    text = 'One\n\n<!-- not run: it needs a GPU -->\n```bash\nnvidia-smi\n```\n\n```yaml title="a.yaml"\nb: 1\n```\n'
    assert blocks_of(text) == [
        Block("bash", "nvidia-smi\n", 4, None, "it needs a GPU"),
        Block("yaml", "b: 1\n", 8, "a.yaml"),
    ]
    assert inspect.getdoc(Block)
