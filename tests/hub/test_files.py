from pathlib import Path

import pytest

from hf_dwt.hub.files import checkpoint_files, refuse_token, snapshot_of, student_files

STUDENT = {"config.json", "model-00001-of-00002.safetensors", "merges.txt", "additional_chat_templates/tool.jinja"}
OTHERS = {"optimizer.pt", "scheduler.pt", "rng_state_0.pth", "trainer_state.json", "pytorch_model.bin", ".env"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in {*STUDENT, *OTHERS, "training_args.bin", "checkpoint-1/model.safetensors", "global_step1/rank.pt"}:
        path = tmp_path / "checkpoint" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "checkpoint"


def test_a_student_is_its_weights_and_texts(folder: Path) -> None:
    assert student_files(folder).keys() == STUDENT


@pytest.mark.parametrize("split", ["all", "train", "eval", "test", "predict"])
def test_results_of_a_split_are_no_part_of_a_student(split: str, folder: Path) -> None:
    (folder / f"{split}_results.json").write_text("{}")
    assert student_files(folder).keys() == STUDENT


def test_a_checkpoint_is_everything_but_the_pickled_arguments(folder: Path) -> None:
    files = checkpoint_files(folder, "last")
    assert {f"last/{name}" for name in (*STUDENT, *OTHERS, "global_step1/rank.pt")} <= files.keys()
    assert "last/training_args.bin" not in files


def test_a_file_with_the_token_is_named(folder: Path) -> None:
    refuse_token(student_files(folder), "hf_secret")
    refuse_token(student_files(folder), None)
    (folder / "config.json").write_text('{"token": "hf_secret"}')
    with pytest.raises(ValueError, match=r"config\.json holds your Hub token and is not pushed") as caught:
        refuse_token(student_files(folder), "hf_secret")
    assert "hf_secret" not in str(caught.value)


def test_a_snapshot_outlives_what_it_was_taken_of(folder: Path, tmp_path: Path) -> None:
    with snapshot_of(student_files(folder), tmp_path) as kept:
        (folder / "config.json").unlink()
        assert kept["config.json"].read_text() == "config.json"
    assert not kept["config.json"].exists()
