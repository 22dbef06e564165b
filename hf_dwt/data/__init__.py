"""From text to batches: loading, sentences and blocks, tokenizer training, masking.

Names are imported when they are first used, so that `import hf_dwt.data` costs nothing.

Example:
    ```python
    from hf_dwt.data import MaskingCollator, load_text, to_blocks, train_tokenizer

    text = load_text("speeches/*.txt")
    tokenizer = train_tokenizer(text["text"], vocab_size=8_000)
    blocks = to_blocks(text, tokenizer, block_size=128)
    collator = MaskingCollator(tokenizer)
    ```
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_dwt.data.blocks import to_blocks, to_sentences
    from hf_dwt.data.causal import CausalCollator
    from hf_dwt.data.masking import MaskingCollator
    from hf_dwt.data.sources import load_text
    from hf_dwt.data.text import split_sentences, take_every
    from hf_dwt.data.tokenizer import train_tokenizer

__all__ = [
    "CausalCollator",
    "MaskingCollator",
    "load_text",
    "split_sentences",
    "take_every",
    "to_blocks",
    "to_sentences",
    "train_tokenizer",
]

_MODULES = {
    "CausalCollator": "causal",
    "MaskingCollator": "masking",
    "load_text": "sources",
    "split_sentences": "text",
    "take_every": "text",
    "to_blocks": "blocks",
    "to_sentences": "blocks",
    "train_tokenizer": "tokenizer",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
