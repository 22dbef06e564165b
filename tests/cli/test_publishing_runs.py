"""`hf-dwt` and the Hub: what a recipe pushes and what not, and that all that it reads is of one commit."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hub_server import OWNER_TOKEN, Hub
from tiny_runs import WORDS, make_student, make_teacher, tokenizer
from transformers import AutoModelForMaskedLM, AutoTokenizer

from hf_dwt.cli import main
from hf_dwt.cli.inputs import read_inputs
from hf_dwt.cli.recipe import make_recipe
from hf_dwt.cli.students import build_student, pinned, read_teacher_config, student_config

STUDENT = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md"}
STUDENT |= {"dwt_recipe.json", "training_args.json", "training_curves.png"}


def save(folder: Path, model: Any) -> Path:
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: Hub) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", OWNER_TOKEN)
    hub.add("me/small", save(tmp_path / "teacher", make_teacher()))
    rows = [" ".join((WORDS * 2)[start : start + 3 + start % 7]) for start in range(10)]
    (tmp_path / "text.txt").write_text("\n".join(rows * 8))
    content = {
        "teacher": {"name": "me/small"},
        "student": {"num_hidden_layers": 2, "hidden_size": 24, "num_attention_heads": 2},
        "data": {"source": "text.txt", "form": "sentences", "length": 16},
        "arguments": {"output_dir": "student", "use_cpu": True, "max_steps": 3, "disable_tqdm": True}
        | {"push_to_hub": True, "hub_model_id": "me/student", "save_strategy": "no"},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    return tmp_path / "recipe.yaml"


def titles(hub: Hub) -> list[str]:
    return [each.title for each in hub.repositories["me/student"].history("main")]


def test_the_student_is_one_commit_and_its_twins_are_told_of_in_another(recipe: Path, hub: Hub) -> None:
    assert main(["train", str(recipe), "--baseline"]) == 0
    assert titles(hub) == ["Tell how the student fares alone", "End of training", "initial commit"]
    repository = hub.repositories["me/student"]
    told, student = list(repository.history("main"))[:2]
    assert set(told.files) == set(student.files) == STUDENT
    changed = {name for name in STUDENT if told.files[name] != student.files[name]}
    assert changed == {"README.md", "dwt_recipe.json"}
    contents = hub.contents("me/student")
    twins = json.loads(contents["dwt_recipe.json"])["baseline"]
    assert [(each["name"], each["steps"] >= 3) for each in twins] == [
        ("alone, equal steps", True),
        ("alone, equal cost", True),
    ]
    card = contents["README.md"].decode()
    for each in twins:
        assert f"{each['loss']:.4f}" in card
    ours = json.loads(Path("student/run.json").read_text())
    assert ours["name"] == "with teacher"
    assert (
        hub.contents("me/student", student.oid)["model.safetensors"] == Path("student/model.safetensors").read_bytes()
    )
    assert Path("student/README.md").read_text() == card
    assert hub.count("POST", "/api/repos/create") == 2, "once before training, once before the comparison is pushed"


def test_without_a_baseline_there_is_one_commit(recipe: Path, hub: Hub) -> None:
    assert main(["train", str(recipe)]) == 0
    assert titles(hub) == ["End of training", "initial commit"]
    card = hub.contents("me/student")["README.md"].decode()
    assert "alone" not in card
    assert "It started from random weights." in card
    assert "text.txt" not in card.split("---")[1], "a file of this machine is no data set of the Hub"


def test_data_sets_of_the_hub_are_on_the_card(recipe: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    hub.add("me/words", {"train.csv": ("text\n" + Path("text.txt").read_text()).encode()}, kind="dataset")
    assert main(["train", str(recipe), "--source", "me/words"]) == 0
    card = hub.contents("me/student")["README.md"].decode()
    assert yaml.safe_load(card.split("---\n")[1])["datasets"] == ["me/words"]
    assert "examples of [me/words](http" in card


def test_a_student_that_is_evaluated_at_the_end_only_has_its_results_on_the_card(recipe: Path, hub: Hub) -> None:
    assert main(["train", str(recipe), "--eval-strategy", "no"]) == 0
    assert titles(hub) == ["Tell how the student fares", "End of training", "initial commit"]
    assert "It was not evaluated" not in hub.contents("me/student")["README.md"].decode()


def test_a_comparison_that_cannot_be_pushed_is_told_with_the_command_that_does(
    recipe: Path, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.fail("POST", "/commit/", 403, times=9, after=1)
    assert main(["train", str(recipe), "--baseline"]) == 2
    told = capsys.readouterr().err
    assert titles(hub) == ["End of training", "initial commit"]
    assert "could not be pushed to 'me/student'" in told
    assert "hf upload me/student student ." in told
    assert "--exclude 'alone-equal-steps/*'" in told
    assert Path("student/README.md").read_text().count("The same student alone,") == 2


def test_a_finished_student_gets_its_comparison_on_resuming(recipe: Path, hub: Hub) -> None:
    assert main(["train", str(recipe)]) == 0
    assert main(["train", str(recipe), "--baseline", "--resume"]) == 0
    assert titles(hub) == ["Tell how the student fares alone", "End of training", "initial commit"]
    card = hub.contents("me/student")["README.md"].decode()
    assert card.count("The same student alone,") == 2
    assert "training_curves.png" in card


def test_the_twins_of_an_earlier_run_are_not_taken_for_those_of_this_one(recipe: Path, hub: Hub) -> None:
    assert main(["train", str(recipe), "--baseline", "--push-to-hub", "false"]) == 0
    assert "The same student alone" in Path("student/README.md").read_text()
    assert main(["train", str(recipe), "--push-to-hub", "false", "--learning-rate", "0.1"]) == 0
    assert "The same student alone" not in Path("student/README.md").read_text()


def test_what_a_token_may_not_write_is_told_in_one_line_before_any_work(
    recipe: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(recipe), "--hub-model-id", "other/student"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("hf-dwt: 'other/student'")
    assert told.count("\n") == 1
    assert "cannot be written to with this token" in told


def test_the_command_on_the_card_repeats_the_run(recipe: Path, hub: Hub) -> None:
    hub_settings = ["--hub-token", OWNER_TOKEN, "--learning-rate", "0.01"]
    assert main(["train", str(recipe), *hub_settings]) == 0
    contents = hub.contents("me/student")
    assert OWNER_TOKEN.encode() not in hub.everything()
    assert "```bash\nhf-dwt train dwt_recipe.json\n```" in contents["README.md"].decode()
    hub.add("me/small", {"config.json": b"{}"})  # the teacher's branch moves
    Path("dwt_recipe.json").write_bytes(contents["dwt_recipe.json"])
    before = Path("student/model.safetensors").read_bytes()
    assert main(["train", "dwt_recipe.json", "--output-dir", "again"]) == 0
    assert Path("again/model.safetensors").read_bytes() == before
    assert len(titles(hub)) == 2, "who repeats it pushes nothing"


def test_a_record_of_a_student_without_a_recipe_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "dwt_recipe.json").write_text('{"schema_version": 1, "recipe": null}')
    assert main(["train", str(tmp_path / "dwt_recipe.json")]) == 2
    assert "the record of a student that was not trained by a recipe" in capsys.readouterr().err


# One commit


def test_names_in_a_recipe_are_read_at_one_commit_whatever_becomes_of_the_branch(
    recipe: Path, hub: Hub, tmp_path: Path
) -> None:
    first = hub.add("me/start", save(tmp_path / "start", make_student()))
    words = hub.add("me/words", {"tokenizer.json": (tmp_path / "start" / "tokenizer.json").read_bytes()})
    data = {"source": "text.txt", "form": "sentences", "length": 16}
    written = make_recipe({"student": {"name": "me/start"}, "tokenizer": {"name": "me/words"}, "data": data})
    settled = pinned(written)
    assert settled.student["revision"] == first
    assert settled.tokenizer is not None
    assert settled.tokenizer.revision == words, "a repository may hold a tokenizer alone"
    # Now the branches move to what cannot be read.
    hub.add("me/start", {"config.json": b"{}", "model.safetensors": b"", "tokenizer.json": b"{}"})
    hub.add("me/words", {"tokenizer.json": b"{}"})
    config = student_config(settled, None)
    student = build_student(settled, config, "masked", seed=0)
    twin = build_student(settled, config, "masked", seed=0)
    start = make_student().state_dict()
    for model in (student, twin):
        assert all((value == start[name]).all() for name, value in model.state_dict().items())
    assert pinned(settled) == settled


def test_a_tokenizer_that_is_named_is_read_at_its_commit(recipe: Path, hub: Hub, tmp_path: Path) -> None:
    words = {each.name: each.read_bytes() for each in (tmp_path / "teacher").glob("tokenizer*")}
    commit = hub.add("me/words", words)
    content = yaml.safe_load(recipe.read_text()) | {"tokenizer": {"name": "me/words"}}
    settled = pinned(make_recipe(content))
    hub.add("me/words", {"tokenizer.json": b"{}"})
    hub.requests.clear()
    assert read_inputs(settled, seed=0).tokenizer.get_vocab() == tokenizer().get_vocab()
    assert any(f"/me/words/resolve/{commit}/" in each.path for each in hub.requests)
    assert hub.count("GET", "/me/words/resolve/main") + hub.count("HEAD", "/me/words/resolve/main") == 0


def test_a_dry_run_reads_the_teacher_at_one_commit(recipe: Path, hub: Hub) -> None:
    content = make_recipe(yaml.safe_load(recipe.read_text()))
    config = read_teacher_config(content)
    assert config is not None
    assert config.hidden_size == 12
    asked = [each.path for each in hub.requests if "/resolve/" in each.path]
    assert ["/main/" in path for path in asked] == [True] + [False] * (len(asked) - 1)


def test_a_grown_student_and_its_tokenizer_are_of_one_commit(
    recipe: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hf_dwt.cli import grow as command

    commit, grow = hub.repositories["me/small"].branches["main"], command.from_weak_teacher

    def grow_while_the_branch_moves(*args: Any, **settings: Any) -> Any:
        grown = grow(*args, **settings)
        hub.add("me/small", {"tokenizer.json": b"{}", "config.json": b"{}"})
        return grown

    monkeypatch.setattr(command, "from_weak_teacher", grow_while_the_branch_moves)
    assert main(["grow", "me/small", "--num-hidden-layers", "2", "-o", "grown"]) == 0
    assert json.loads(Path("grown/growth_plan.json").read_text())["teacher"] == f"me/small@{commit}"
    assert AutoTokenizer.from_pretrained("grown").get_vocab() == tokenizer().get_vocab()
    assert AutoModelForMaskedLM.from_pretrained("grown").config.num_hidden_layers == 2
    asked = [each.path for each in hub.requests if "/resolve/" in each.path]
    assert ["/main/" in path for path in asked] == [True] + [False] * (len(asked) - 1)
