"""`hf-dwt assess`, from a recipe to a verdict."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from tiny_runs import WORDS, make_teacher, tokenizer

from hf_dwt.cli import main
from hf_dwt.comparison import Run, read_run

RECIPE = """
teacher: teacher
student: {hidden_size: 24, num_hidden_layers: 2}
data: {source: text.txt, evaluation_source: text.txt, form: sentences, length: 24, num_evaluation_examples: 40}
arguments: {output_dir: student, use_cpu: true}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make_teacher().save_pretrained("teacher")
    tokenizer().save_pretrained("teacher")
    (tmp_path / "text.txt").write_text(
        "\n".join(" ".join((WORDS * 3)[start : start + 14]) for start in range(len(WORDS)))
    )
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def leave_run(folder: Path, loss: float, taught_steps: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(asdict(Run("alone", 9, loss, 0.5, 1.0, taught_steps, ()))))


@pytest.fixture
def baseline(folder: Path) -> Path:
    """The student alone, as `--baseline` leaves it."""
    quick = ["--max-steps", "1", "--save-strategy", "no", "--disable-tqdm", "true", "--allow-bad-teacher", "true"]
    sizes = ["--hidden-size", "12", "--num-hidden-layers", "1"]
    assert main(["train", "recipe.yaml", "--baseline", *quick, *sizes]) == 0
    return folder / "student" / "alone-equal-steps"


def assessed(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, object]:
    assert main(["assess", "recipe.yaml", "--json", *options]) == 0
    report: dict[str, object] = json.loads(capsys.readouterr().out)
    return report


def test_a_table_tells_the_figures_the_verdict_and_the_advice_with_its_source(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["assess", "recipe.yaml", "--standalone-loss", "1.0"]) == 0
    output = " ".join(capsys.readouterr().out.split())
    for part in ("teacher (masked)", "unigram loss", "calibration error", "quality", "of a step", "0.00% of the text"):
        assert part in output
    assert "not known: It is" in output
    assert "Busbridge et al., 2025" in output


def test_the_figure_of_the_student_alone_comes_from_the_user_or_from_an_earlier_run(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert assessed(capsys)["standalone_loss"] is None
    assert assessed(capsys, "--standalone-loss", "2.5")["standalone_loss"] == 2.5
    leave_run(folder / "student", 1.1, taught_steps=9)
    leave_run(folder / "student" / "alone-equal-steps", 9.5)
    own = assessed(capsys, "--baseline")
    assert (own["standalone_loss"], own["verdict"]) == (9.5, "stronger than its student")
    leave_run(folder / "other", 0.5)
    assert assessed(capsys, "--baseline", "other")["standalone_loss"] == 0.5
    assert assessed(capsys, "--baseline", "other", "--hidden_size", "48")["relative_parameters"] < 0.3


def test_a_baseline_of_the_same_examples_and_masks_is_taken_without_doubt(
    baseline: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    report = assessed(capsys, "--baseline")
    assert report["standalone_loss"] == read_run(baseline).loss
    assert "doubt" not in report


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--seed", "7"], "it differs in mask_seed 42 against 7"),
        (["--mask-probability", "0.4"], "it differs in mask_probability 0.15 against 0.4"),
        (["--num-evaluation-examples", "5"], "it differs in the examples"),
    ],
)
def test_a_baseline_of_other_examples_or_masks_is_refused(
    options: list[str], told: str, baseline: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["assess", "recipe.yaml", "--baseline", *options]) == 2
    assert told in capsys.readouterr().err


def test_a_baseline_that_does_not_tell_its_masks_is_taken_with_a_word(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leave_run(folder / "other", 0.5)
    assert "does not tell what examples and masks" in str(assessed(capsys, "--baseline", "other")["doubt"])
    assert main(["assess", "recipe.yaml", "--baseline", "other"]) == 0
    assert "the verdict holds only if they are those of this recipe" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--baseline"], "'student' holds no run of the student alone"),
        (["--baseline", "student", "--standalone-loss", "1"], "Give either `--standalone-loss` or `--baseline`"),
        (["--teacher", "null", "--objective", "masked"], "this recipe has no `teacher`"),
        (["--dtype", "float32"], "`--dtype` could be any of --teacher.dtype, --cache.dtype"),
        (["--standalone-loss", "-1"], "`--standalone-loss` is -1.0: a loss is finite and at least 0, in nats"),
    ],
)
def test_what_cannot_be_assessed_is_told_in_one_line(
    options: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leave_run(folder / "student", 1.1, taught_steps=9)
    assert main(["assess", "recipe.yaml", *options]) == 2
    assert message in capsys.readouterr().err
