"""Packaged sets: what is shipped can be read, what is computed from a molecule is right."""

import pytest

from hf_dwt.finetuning.packaged import molecule_properties, read_packaged


def test_the_shipped_glosses_are_five_thousand_different_ones() -> None:
    rows = read_packaged("supersenses")
    assert len(set(rows["text"])) == 5000
    assert len(set(rows["label"])) > 20


@pytest.mark.parametrize(
    ("smiles", "rings", "polarity", "halogen"),
    [
        ("CCO", 0, 1 / 3, 0),
        ("c1ccccc1Cl", 1, 0, 1),
        ("c1ccc2[nH]ccc2c1", 2, 1 / 9, 0),
        ("C%10CC%10Br", 1, 0, 1),
        ("C[C@@H]1CC[N+](C)C1", 1, 1 / 7, 0),
        ("O=S(F)N", 0, 3 / 4, 1),
    ],
)
def test_properties_of_a_molecule_are_counted(smiles: str, rings: float, polarity: float, halogen: int) -> None:
    counted = molecule_properties(smiles)
    assert counted["rings"] == rings
    assert counted["polarity"] == pytest.approx(polarity)
    assert counted["halogen"] == halogen


def test_an_unknown_set_is_refused() -> None:
    with pytest.raises(ValueError, match="There is no packaged set 'imdb': use one of polarity"):
        read_packaged("imdb")
