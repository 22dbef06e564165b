"""What a tokenizer's tokens are: special or ordinary, start or continuation of a word."""

import numpy as np
from numpy.typing import NDArray
from tokenizers import decoders
from transformers import PreTrainedTokenizerBase

# Byte-level vocabularies write the bytes for space, newline, tab and carriage return so.
_BYTE_LEVEL_SPACE = "Ġ"
_BYTE_LEVEL_BREAKS = ("Ċ", "ĉ", "č")


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> NDArray[np.bool_]:
    """Which tokens are special, by name (`[CLS]`, `[UNK]`) or because they were added as special.

    Returns:
        Shape (largest token id + 1,).
    """
    special = np.zeros(max(tokenizer.get_vocab().values()) + 1, dtype=np.bool_)
    special[tokenizer.all_special_ids] = True
    special[[index for index, token in tokenizer.added_tokens_decoder.items() if token.special]] = True
    return special


def word_boundaries(tokenizer: PreTrainedTokenizerBase) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which tokens always start a word, and which always end one; special tokens do both.

    The marks are those of the tokenizer's decoder: WordPiece continues a word with its prefix ("##"),
    ByteLevel starts one with a space ("Ġ"), Metaspace with its replacement ("▁"). For the latter two a
    word is what stands between white space, punctuation included.

    Returns:
        Two arrays of shape (largest token id + 1,).

    Raises:
        ValueError: A tokenizer of another kind, whose vocabulary does not tell.
    """
    decoder = tokenizer.backend_tokenizer.decoder if tokenizer.is_fast else None
    starts, ends = special_tokens(tokenizer), special_tokens(tokenizer)
    for token, index in tokenizer.get_vocab().items():
        match decoder:
            case decoders.WordPiece():
                starts[index] |= not token.startswith(decoder.prefix)
            case decoders.ByteLevel():
                starts[index] |= token.startswith((_BYTE_LEVEL_SPACE, *_BYTE_LEVEL_BREAKS))
                ends[index] |= token.endswith(_BYTE_LEVEL_BREAKS)
            case decoders.Metaspace():
                starts[index] |= token.startswith(decoder.replacement)
            case _:
                raise ValueError(
                    "`whole_word=True` needs a tokenizer that marks words in its vocabulary (WordPiece, "
                    f"ByteLevel or Metaspace decoder), not one with the decoder {decoder}. "
                    "Use `whole_word=False`."
                )
    return starts, ends
