"""The algebra of one axis: what is written by copies and read in shares comes out as before."""

import pytest
import torch
from tiny_teachers import largest_difference, make_tiny

from hf_dwt import from_weak_teacher, register_width_method
from hf_dwt.remapping.width import (
    NEW,
    WIDTH_METHODS,
    Expansion,
    copied,
    exact,
    extended,
    fused,
    head_sources,
    read,
    units,
    write,
)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(("old", "new"), [(4, 8), (4, 12), (5, 7), (3, 10), (6, 6)])
@pytest.mark.parametrize("method", [copied, extended, exact])
@pytest.mark.parametrize("fills", [("zero", "random"), ("random", "zero")])
@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_what_is_written_and_read_again_is_what_it_was(method, old, new, fills, noise) -> None:
    torch.manual_seed(0)
    writer, reader, given = torch.randn(old, 3), torch.randn(2, old), torch.randn(6, 3)
    axis = units(method, "intermediate", old, new, *fills)
    wider_writer = write(writer, 0, axis, generator())
    wider_reader = read(reader, 1, axis, noise, generator())
    assert (wider_writer.shape, wider_reader.shape) == ((new, 3), (2, new))
    torch.testing.assert_close(given @ wider_writer.T @ wider_reader.T, given @ writer.T @ reader.T)


def test_noise_sets_the_copies_of_a_column_apart() -> None:
    axis = units(copied, "hidden", 3, 6, "zero", "random")
    plain = read(torch.ones(4, 3), 1, axis, 0.0, generator())
    torch.testing.assert_close(plain[:, :3], plain[:, 3:])
    torch.manual_seed(0)
    noisy = read(torch.randn(4, 3), 1, axis, 0.5, generator())
    assert float((noisy[:, :3] - noisy[:, 3:]).abs().min()) > 0


@pytest.mark.parametrize(
    ("old", "new"),
    [
        *[((4, 4), new) for new in [(8, 8), (8, 4), (12, 6), (12, 12), (16, 4)]],
        *[((4, 2), new) for new in [(8, 4), (12, 4), (16, 2), (8, 8), (6, 3)]],
        *[((4, 1), new) for new in [(8, 1), (8, 2), (8, 4), (12, 6)]],
        *[((6, 2), new) for new in [(8, 4), (12, 4), (12, 6)]],
    ],
)
@pytest.mark.parametrize("method", [copied, extended, exact])
def test_a_query_head_stays_with_its_key_value_head(method, old, new) -> None:
    query, key_value = head_sources(method, old, new)
    assert (len(query), len(key_value)) == new
    assert set(range(old[0])) <= set(query), "every old head is somewhere"
    for head, source in enumerate(query):
        if source != NEW:
            assert key_value[head // (new[0] // new[1])] == source // (old[0] // old[1])


def test_fused_axes_lie_one_after_the_other_or_by_heads() -> None:
    segment = units(copied, "query", 4, 8, "random", "zero")
    assert fused([segment] * 2, 1, 1).source.tolist() == [0, 1, 2, 3] * 2 + [4, 5, 6, 7] * 2
    # Two heads of two entries, their queries and keys side by side: the copies of whole heads follow.
    assert fused([segment] * 2, 2, 4).source.tolist() == list(range(8)) * 2


def test_copies_are_counted_and_new_units_are_alone() -> None:
    axis = Expansion(torch.tensor([0, 1, 0, NEW]), 2)
    assert axis.copies.tolist() == [2, 1, 2, 1]
    assert axis.norm_share == 0.75


def test_units_are_added_that_are_new_or_copies_wherever_they_lie() -> None:
    axis = Expansion(torch.tensor([1, NEW, 1, 0, 0, NEW, 2]), 3)
    assert axis.added.tolist() == [False, True, True, False, True, True, False]
    behind = units(copied, "hidden", 3, 8, "zero", "random")
    assert behind.added.tolist() == [False] * 3 + [True] * 5


def test_a_method_of_ones_own_grows_a_student_and_may_be_registered_again() -> None:
    for _ in range(2):

        @register_width_method("mirrored")
        def mirrored(axis: str, num_old: int, num_new: int) -> list[int]:
            there_and_back = [*range(num_old), *reversed(range(num_old))]
            return [there_and_back[unit % (2 * num_old)] for unit in range(num_new)]

    teacher = make_tiny("bert")
    student = from_weak_teacher(teacher, method="mirrored", hidden_size=64)
    assert largest_difference(teacher, student) <= 1e-5
    embeddings = student.get_input_embeddings().weight
    torch.testing.assert_close(embeddings[:, :32], embeddings[:, 32:].flip(-1))
    thrice = from_weak_teacher(teacher, method="mirrored", hidden_size=96)
    assert largest_difference(teacher, thrice) <= 1e-5
    register_width_method("short")(lambda axis, old, new: [0])
    with pytest.raises(ValueError, match="between -1 and 31 for the axis 'hidden'"):
        from_weak_teacher(teacher, method="short", hidden_size=64)


def test_built_in_names_are_refused() -> None:
    before = WIDTH_METHODS["exact"]
    with pytest.raises(ValueError, match="'exact' is a built-in width method"):
        register_width_method("exact")(copied)
    assert WIDTH_METHODS["exact"] is before


def test_heads_that_find_no_room_are_told_how_much_they_need() -> None:
    with pytest.raises(ValueError, match="hold the teacher's 12 on 3: give at least 12 key-value heads"):
        head_sources(exact, (12, 3), (8, 8))
