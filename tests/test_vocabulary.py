import copy

import pytest

from hf_dwt.data import train_tokenizer
from hf_dwt.vocabulary import num_shared_tokens, num_tokens


@pytest.fixture
def with_added_tokens(tokenizer):
    larger = copy.deepcopy(tokenizer)
    larger.add_tokens(["hedgehog", "weasel"])
    return larger


def test_models_of_one_tokenizer_share_all_of_its_tokens(tokenizer):
    size = len(tokenizer)
    assert num_shared_tokens(tokenizer, tokenizer, size, size) == size
    assert num_shared_tokens(tokenizer, copy.deepcopy(tokenizer), size, size) == size


@pytest.mark.parametrize(("teacher_padding", "student_padding"), [(0, 5), (5, 0), (3, 8), (8, 3)])
def test_padding_rows_of_either_model_are_not_shared(tokenizer, teacher_padding, student_padding):
    size = len(tokenizer)
    assert num_shared_tokens(tokenizer, tokenizer, size + teacher_padding, size + student_padding) == size


def test_tokens_that_the_student_adds_after_the_teachers_are_not_shared(tokenizer, with_added_tokens):
    size = len(tokenizer)
    assert len(with_added_tokens) == size + 2
    assert num_shared_tokens(tokenizer, with_added_tokens, size, size + 2) == size
    assert num_shared_tokens(tokenizer, with_added_tokens, size + 8, size + 8) == size


def test_tokens_that_the_student_lacks_are_refused(tokenizer, with_added_tokens):
    size = len(tokenizer)
    with pytest.raises(ValueError, match=rf"differ at 2 tokens, first id {size} \('hedgehog' vs None\)"):
        num_shared_tokens(with_added_tokens, tokenizer, size + 2, size)


def test_tokenizers_of_different_text_are_refused_with_count_and_first_difference(tokenizer):
    other = train_tokenizer(["quick brown foxes jump over lazy dogs"] * 3, vocab_size=len(tokenizer))
    ours, theirs = ({index: token for token, index in each.get_vocab().items()} for each in (tokenizer, other))
    differing = [index for index, token in sorted(ours.items()) if theirs.get(index) != token]
    first = differing[0]
    text = (
        rf"`teacher` and `model` must share one vocabulary: they differ at {len(differing)} tokens, "
        rf"first id {first} \({ours[first]!r} vs {theirs[first]!r}\)\. Build the student with the teacher's tokenizer"
    )
    with pytest.raises(ValueError, match=text):
        num_shared_tokens(tokenizer, other, len(tokenizer), len(other))


class Stub:
    """As much of a tokenizer as is looked at."""

    def __init__(self, *tokens: str, **special: int) -> None:
        self._vocab = {token: index for index, token in enumerate(tokens) if token}
        for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"):
            setattr(self, f"{name}_token_id", special.get(name))

    def get_vocab(self) -> dict[str, int]:
        return self._vocab


def test_permuted_tokens_are_refused():
    with pytest.raises(ValueError, match=r"differ at 2 tokens, first id 1 \('b' vs 'c'\)"):
        num_shared_tokens(Stub("a", "b", "c", "d"), Stub("a", "c", "b", "d"), 4, 4)
    assert num_shared_tokens(Stub("a", "b", "c", "d"), Stub("a", "b", "c", "d"), 4, 4) == 4


@pytest.mark.parametrize("name", ["bos", "eos", "unk", "sep", "pad", "cls", "mask"])
def test_special_tokens_with_different_ids_are_refused(name):
    with pytest.raises(ValueError, match=f"must share their special tokens: `{name}_token_id` is 0 vs 2"):
        num_shared_tokens(Stub("a", "b", "c", **{name: 0}), Stub("a", "b", "c", **{name: 2}), 3, 3)


def test_a_special_token_that_only_one_of_them_names_is_no_difference():
    assert num_shared_tokens(Stub("a", "b", pad=0), Stub("a", "b"), 2, 2) == 2
    assert num_shared_tokens(Stub("a", "b"), Stub("a", "b", pad=0), 2, 2) == 2


def test_ids_without_a_token_do_not_cut_the_last_tokens_off():
    holed = Stub("a", "", "", "d")
    assert num_tokens(holed) == 4
    assert num_shared_tokens(holed, holed, 8, 8) == 4


def test_without_tokenizers_the_sizes_are_compared(tokenizer):
    assert num_shared_tokens(None, None, 50, 60) == 50
    assert num_shared_tokens(None, None, 60, 50) == 50


def test_one_tokenizer_bounds_the_real_tokens(tokenizer):
    size = len(tokenizer)
    assert num_shared_tokens(tokenizer, None, size + 3, size + 5) == size
    assert num_shared_tokens(None, tokenizer, size + 3, size + 5) == size
