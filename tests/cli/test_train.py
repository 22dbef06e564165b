"""`hf-dwt train`, from a recipe to a student and its twins."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer, BertConfig, BertForMaskedLM

from hf_dwt.cli import main
from hf_dwt.cli import train as cli_train
from hf_dwt.cli.demo_inputs import smiles_tokenizer
from hf_dwt.cli.recipe import make_recipe

TEXT = ["the cat sat on the mat", "a dog ran over the hill", "rain fell on the old house all night"]
RECIPES = Path(__file__).parents[2] / "trainer_configs" / "recipes"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("\n".join(TEXT * 20) + "\n")
    return tmp_path


def quick(**more: object) -> list[str]:
    options = {"use_cpu": "true", "max_steps": 4, "save_strategy": "no", "disable_tqdm": "true", **more}
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


TEXTS = ["--source", "text.txt", "--evaluation_source", "text.txt", "--num_evaluation_examples", "8"]


def test_the_causal_recipes_make_a_teacher_and_then_a_larger_student_with_its_twins(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--length", "16", "--tokenizer.vocab_size", "300", "--n_embd", "16"]
    assert main(["train", str(RECIPES / "causal_teacher.yaml"), *TEXTS, *small, *quick(max_steps=30)]) == 0
    grown = ["--length", "16", "--n_embd", "32", *quick(max_steps=20, allow_bad_teacher="true")]
    assert main(["train", str(RECIPES / "causal.yaml"), "--baseline", *TEXTS, *grown]) == 0
    output = capsys.readouterr().out
    assert "At equal steps (20): the teacher" in output
    assert "At equal cost" in output
    student = AutoModelForCausalLM.from_pretrained(folder / "speeches-student")
    assert student.config.n_embd == 32
    runs = [json.loads(path.read_text()) for path in sorted(folder.glob("speeches-student/**/run.json"))]
    assert {run["name"] for run in runs} == {"with teacher", "alone, equal steps", "alone, equal cost"}
    assert max(run["steps"] for run in runs) > 20


@pytest.mark.parametrize("name", ["molecules", "paper"])
def test_a_dry_run_tells_sizes_and_costs_from_configurations_alone(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    BertConfig(architectures=["BertForMaskedLM"], num_hidden_layers=4).save_pretrained(folder / "teacher")
    recipe = str(RECIPES / f"{name}.yaml")
    assert main(["train", recipe, "--dry-run", "--teacher.name", str(folder / "teacher"), "--bf16", "false"]) == 0
    output = capsys.readouterr().out
    assert "teacher's share of a step's cost" in output
    assert "unknown until read" in output
    if name == "paper":
        # The paper's own sizes: 67.0M and 52.8M, with the tied head's bias and transform.
        assert "0.79" in output


@pytest.mark.parametrize("named", ["student", "tokenizer", "neither"])
def test_a_dry_run_counts_the_vocabulary_of_the_tokenizer_that_is_named(named: str, recipe_folder: Path) -> None:
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    student = {"name": "teacher"} if named == "student" else {"model_type": "bert", **small}
    tokenizer = {"vocab_size": 80} if named == "neither" else {"name": "teacher"}
    content = {"objective": "masked", "student": student, "tokenizer": tokenizer, "data": {"source": "text.txt"}}
    if named == "student":
        expected = BertForMaskedLM.from_pretrained("teacher").num_parameters()
    else:
        size = 80 if named == "neither" else len(AutoTokenizer.from_pretrained("teacher"))
        expected = BertForMaskedLM(BertConfig(vocab_size=size, **small)).num_parameters()
    content["data"]["length"] = 24
    assert cli_train.forecast(make_recipe(content))["student_parameters"] == expected


def test_a_cache_serves_a_student_of_another_seed_that_keeps_the_seed_of_the_data(
    recipe_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (recipe_folder / "text.txt").read_text()
    recipe = yaml.safe_load((recipe_folder / "recipe.yaml").read_text())
    recipe["data"] = {"source": "text.txt", "form": "sentences", "length": 24, "num_evaluation_examples": 4}
    recipe["cache"] = {"folder": "cache", "epochs": 1}
    (recipe_folder / "text.txt").write_text(text * 2)
    (recipe_folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    words = ["train", "recipe.yaml", *quick(max_steps=1, seed=1, allow_bad_teacher="true")]
    assert main([*words, "--data_seed", "0", "--output_dir", "first"]) == 0
    assert main([*words, "--seed", "2", "--data_seed", "0", "--output_dir", "second"]) == 0
    assert main([*words, "--output_dir", "third"]) == 2
    assert "holds another cache" in capsys.readouterr().err


def test_errors_are_one_line_and_status_2(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "nowhere.yaml"]) == 2
    assert capsys.readouterr().err == "hf-dwt: There is no recipe 'nowhere.yaml'.\n"


@pytest.mark.parametrize(
    ("option", "section"),
    [
        (["--weighting_kwargs", "{1: 2}"], "arguments"),
        (["--n_embd", "wide"], "student"),
        (["--source", "3"], "data"),
    ],
)
def test_a_value_of_a_wrong_type_is_told_in_one_line_with_its_section(
    option: list[str], section: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = [str(RECIPES / "causal_teacher.yaml"), *TEXTS, *quick()]
    assert main(["train", *recipe, *option]) == 2
    assert capsys.readouterr().err.startswith(f"hf-dwt: A value of `{section}` is of a wrong type: ")


def test_a_type_error_in_our_own_code_is_no_fault_of_the_users(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise TypeError("unsupported operand type(s)")

    monkeypatch.setattr(cli_train, "run_student", broken)
    small = ["--length", "16", "--tokenizer.vocab_size", "300", "--n_embd", "16"]
    with pytest.raises(TypeError, match="unsupported operand"):
        main(["train", str(RECIPES / "causal_teacher.yaml"), *TEXTS, *small, *quick()])


def test_a_baseline_without_a_teacher_is_refused_before_any_work(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(RECIPES / "causal_teacher.yaml"), "--baseline"]) == 2
    assert "this recipe has none" in capsys.readouterr().err


def test_help_does_not_import_torch() -> None:
    script = (
        "import sys\nfrom hf_dwt.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=False).returncode == 0


def test_the_molecule_recipe_trains_a_masked_student(folder: Path) -> None:
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"CNOcno()=123456789"]
    tokenizer = smiles_tokenizer(vocabulary)
    tokenizer.save_pretrained(folder / "teacher")
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertForMaskedLM(BertConfig(vocab_size=len(vocabulary), **size)).save_pretrained(folder / "teacher")
    (folder / "molecules.txt").write_text("\n".join(["CC(=O)Nc1ccccc1", "c1ccncc1CO", "CCOC(=O)C"] * 20))
    data = ["--source", "molecules.txt", "--evaluation_source", "molecules.txt", "--teacher.name", "teacher"]
    small = ["--hidden_size", "32", "--num_hidden_layers", "2", "--intermediate_size", "64"]
    options = [*data, *small, *quick(allow_bad_teacher="true")]
    assert main(["train", str(RECIPES / "molecules.yaml"), *options]) == 0
    assert AutoModelForMaskedLM.from_pretrained(folder / "molecules-student").config.hidden_size == 32
