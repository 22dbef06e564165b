"""The demo, on stand-ins of its inputs, in small."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, BertConfig, BertForMaskedLM

from hf_dwt.cli import main
from hf_dwt.cli.demo_inputs import smiles_tokenizer
from hf_dwt.data import MaskingCollator

MOLECULES = ["CC(=O)Nc1ccccc1", "c1ccncc1CO", "CCOC(=O)C", "CCN(CC)CC", "O=C(O)c1ccccc1"]
SPEECH = ["the cat sat on the mat and the dog ran over the hill", "rain fell on the old house all night long"]


def write_molecules(folder: Path) -> None:
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"CNOcno()=123456789"]
    tokenizer = smiles_tokenizer(vocabulary)
    tokenizer.save_pretrained(folder / "teacher")
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model = BertForMaskedLM(BertConfig(vocab_size=len(vocabulary), max_position_embeddings=64, **size))
    # A little training, so that it passes the check before the first step.
    collate, optimiser = MaskingCollator(tokenizer), torch.optim.AdamW(model.parameters(), lr=0.01)
    for epoch in range(60):
        collate.set_epoch(epoch)
        model(**collate([dict(tokenizer(text)) for text in MOLECULES])).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    model.save_pretrained(folder / "teacher")
    (folder / "train.txt").write_text("\n".join(MOLECULES * 30))
    (folder / "held_out.txt").write_text("\n".join(MOLECULES))


def test_molecules_end_with_a_table_a_plot_a_student_and_three_completions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_molecules(tmp_path)
    assert main(["demo", "--output", str(tmp_path), "--steps", "8", "--student-size", "1x64"]) == 0
    output = capsys.readouterr().out
    assert "Held-out results" in output
    assert "At equal steps (8): the teacher" in output
    assert "At equal cost" in output
    assert [output.count(f"\n{word} ") for word in ("given", "before", "after", "truth")] == [3, 3, 3, 3]
    assert (tmp_path / "curves.png").stat().st_size > 1000
    assert AutoModelForMaskedLM.from_pretrained(tmp_path / "student").config.hidden_size == 64


def test_speeches_train_their_teacher_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, copies in (("train.txt", 200), ("held_out.txt", 40)):
        (tmp_path / name).write_text("\n".join(SPEECH * copies))
    options = ["--causal", "--steps", "8", "--student-size", "3x128", "--grow", "--json"]
    assert main(["demo", "--output", str(tmp_path), *options]) == 0
    answer, output = capsys.readouterr()
    content = json.loads(answer)
    assert set(content) == {"runs", "teacher", "summary", "completions", "output_dir", "curves"}
    for row in content["runs"]:
        assert f"{row['name']} {row['steps']:,} {row['loss']:.4f} {row['accuracy']:.2%}" in " ".join(output.split())
    assert all(line in " ".join(output.split()) for line in content["summary"])
    assert [[*each] for each in content["completions"]] == [["given", "before", "after", "truth"]] * 3
    assert Path(content["curves"]).is_file()
    assert "First the teacher: a 2-layer GPT-2 of hidden size 128, 100 steps" in output, "fewer would only guess"
    assert "At equal steps (8): the teacher" in output
    assert "grown, alone" in output
    assert "Growing" in output
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "student" / "grown").config.n_layer == 3
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "teacher").config.n_layer == 2
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "student").config.n_layer == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--grow"], "the teacher of the molecules is an ALBERT, the student a BERT"),
        (["--student-size", "big"], "LAYERSxHIDDEN"),
        (["--student-size", "2x100"], "a multiple of 64"),
        *((["--minutes", given], f"must be above 0 and finite, got {given}") for given in ("0", "-2.5", "nan", "inf")),
        (["--steps", "-1"], "must be above 0, got -1"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--output", str(tmp_path), *options]) == 2
    assert message in capsys.readouterr().err


def test_inputs_alone_are_told_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train.txt").write_text("here")
    assert main(["demo", "--causal", "--prepare-only", "--output", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"inputs": str(tmp_path)}
