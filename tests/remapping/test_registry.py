"""Names of one's own may be taken again, built-in ones never."""

import pytest

from hf_dwt.remapping.registry import Registry


def make_registry() -> Registry[str]:
    return Registry("sort of tea", {"green": "Sencha"})


def test_a_registry_starts_with_what_is_built_in() -> None:
    registry = make_registry()
    assert dict(registry) == {"green": "Sencha"}
    assert "black" not in registry


def test_a_registered_method_is_found_and_given_back_unchanged() -> None:
    registry = make_registry()
    assert registry.register("black")("Assam") == "Assam"
    assert registry["black"] == "Assam"


def test_a_name_of_ones_own_may_be_taken_again() -> None:
    registry = make_registry()
    registry.register("black")("Assam")
    registry.register("black")("Keemun")
    assert registry["black"] == "Keemun"


def test_a_built_in_name_is_refused_before_it_is_overwritten_and_told_as_what_it_is() -> None:
    registry = make_registry()
    with pytest.raises(ValueError, match="'green' is a built-in sort of tea: register yours under another name"):
        registry.register("green")
    assert registry["green"] == "Sencha"


def test_two_registries_share_nothing() -> None:
    one, other = make_registry(), make_registry()
    one.register("black")("Assam")
    assert "black" not in other
