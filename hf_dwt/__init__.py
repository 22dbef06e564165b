"""Train a larger language model from the smaller one you already have, with the Hugging Face `Trainer`."""

from hf_dwt._version import __version__

__all__ = ["__version__"]
