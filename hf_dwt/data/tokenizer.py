"""Training a tokenizer on a corpus: BERT-like WordPiece or GPT-2-like byte-level BPE."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

_BERT_NAMES = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
_GPT2_NAMES = dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), "<|endoftext|>")
# As BERT's own vocabulary trainer: rarer characters become [UNK].
_MAX_CHARACTERS = 1000


def train_tokenizer(
    texts: Iterable[str],
    vocab_size: int,
    *,
    kind: Literal["wordpiece", "bpe"] = "wordpiece",
    lowercase: bool | None = None,
    min_frequency: int = 2,
    extra_special_tokens: Sequence[str] = (),
    model_max_length: int | None = None,
) -> PreTrainedTokenizerFast:
    """A tokenizer trained on the texts, the same one for the same texts on every run.

    Args:
        texts: Strings. Read twice for `wordpiece`: an iterator is held in memory, a list or a data
            set's column is not.
        vocab_size: Tokens at most, special ones included; fewer where the texts give no more.
        kind: "wordpiece" as in BERT (`[PAD]`, `[UNK]`, `[CLS]`, `[SEP]`, `[MASK]`, ids 0 to 4), for masked LMs; "bpe",
            byte-level as in GPT-2 (`<|endoftext|>`, id 0, ends, begins and pads), for causal LMs.
        lowercase: None: True for "wordpiece" (which strips accents then), False for "bpe".
        min_frequency: How often a pair of pieces must occur to be joined.
        extra_special_tokens: Come after the kind's own.
        model_max_length: Tokens the model can read; None sets no limit.

    Raises:
        TypeError: `texts` is a string or holds something else than strings.
        ValueError: An unknown `kind`, no text, or a `vocab_size` below the special tokens and the
            characters (for "bpe" the 256 bytes).

    Example:
        >>> from hf_dwt.data import train_tokenizer
        >>> train_tokenizer(["to be or not to be"], vocab_size=40).tokenize("To be")
        ['to', 'be']
    """
    if kind not in ("wordpiece", "bpe"):
        raise ValueError(f'`kind` must be "wordpiece" or "bpe", not {kind!r}.')
    if isinstance(texts, str):
        raise TypeError("`texts` must be an iterable of strings, not one string: pass `[text]`.")
    if kind == "wordpiece":
        names, train = _BERT_NAMES, _train_wordpiece
    else:
        names, train = _GPT2_NAMES, _train_bpe
    special = list(dict.fromkeys([*names.values(), *extra_special_tokens]))
    backend = train(texts, vocab_size, special, kind == "wordpiece" if lowercase is None else lowercase, min_frequency)
    options = {} if model_max_length is None else {"model_max_length": model_max_length}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, extra_special_tokens=list(extra_special_tokens), **names, **options
    )


def _train_wordpiece(
    texts: Iterable[str], vocab_size: int, special: list[str], lowercase: bool, min_frequency: int
) -> Tokenizer:
    if isinstance(texts, Iterator):
        texts = list(texts)
    normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    characters = _characters(texts, normalizer)
    continuations = [f"##{character}" for character in characters if _can_continue_a_word(character)]
    # The trainer numbers continuations in the order of a hash map, different on every run, and breaks
    # ties by number. Given as special tokens, ours come first and in order; the model is then rebuilt.
    first_tokens = [*special, *continuations]
    _check_vocab_size(vocab_size, len(first_tokens) + len(characters), f"{len(characters)} characters")
    draft = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    draft.normalizer, draft.pre_tokenizer = normalizer, pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=first_tokens,
        initial_alphabet=characters,
        limit_alphabet=len(characters),
        show_progress=False,
    )
    draft.train_from_iterator(_checked(texts), trainer)
    backend = Tokenizer(models.WordPiece(draft.get_vocab(with_added_tokens=False), unk_token="[UNK]"))
    backend.normalizer, backend.pre_tokenizer = normalizer, pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    backend.post_processor = processors.BertProcessing(
        ("[SEP]", special.index("[SEP]")), ("[CLS]", special.index("[CLS]"))
    )
    backend.add_special_tokens(special)
    return backend


def _train_bpe(
    texts: Iterable[str], vocab_size: int, special: list[str], lowercase: bool, min_frequency: int
) -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    _check_vocab_size(vocab_size, len(special) + len(alphabet), "256 bytes")
    backend = Tokenizer(models.BPE())
    if lowercase:
        backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=special,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    backend.train_from_iterator(_checked(texts), trainer)
    return backend


def _checked(texts: Iterable[str]) -> Iterator[str]:
    has_text = False
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"`texts` must hold strings, not {type(text).__name__}.")
        has_text = has_text or bool(text.strip())
        yield text
    if not has_text:
        raise ValueError("`texts` is empty: there is nothing to train a tokenizer on.")


def _characters(texts: Iterable[str], normalizer: normalizers.Normalizer) -> list[str]:
    """The most frequent characters of the normalised texts, white space excluded, sorted."""
    counts: Counter[str] = Counter()
    for text in _checked(texts):
        counts.update(normalizer.normalize_str(text))
    visible = [item for item in counts.items() if not item[0].isspace()]
    frequent = sorted(visible, key=lambda item: (-item[1], item[0]))[:_MAX_CHARACTERS]
    return sorted(character for character, _ in frequent)


def _can_continue_a_word(character: str) -> bool:
    return len(pre_tokenizers.BertPreTokenizer().pre_tokenize_str(f"a{character}")) == 1


def _check_vocab_size(vocab_size: int, smallest: int, content: str) -> None:
    if vocab_size < smallest:
        raise ValueError(
            f"`vocab_size` is {vocab_size}, too small for the special tokens and the {content} of the texts: "
            f"take at least {smallest}."
        )
