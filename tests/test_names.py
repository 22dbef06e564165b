"""A mistyped name finds the one that was meant, and nothing that is merely there."""

from hf_dwt.names import nearest


def test_the_most_alike_of_the_known_names_is_found() -> None:
    assert nearest("hiden_size", {"hidden_size", "head_size", "vocab_size"}) == "hidden_size"
    assert nearest("hiden_size", iter(["vocab_size", "hidden_size"])) == "hidden_size"


def test_a_name_like_none_of_them_finds_nothing() -> None:
    assert nearest("colour", ["hidden_size", "vocab_size"]) is None
    assert nearest("colour", []) is None
