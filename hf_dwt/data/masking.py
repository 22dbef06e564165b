"""Batches for masked language models, with masks that belong to the examples."""

# E examples, P positions

import copy
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from hf_dwt.data.padding import pad_examples
from hf_dwt.data.token_kinds import special_tokens, word_boundaries

_SHARE_MASKED = 0.8
_SHARE_RANDOM = 0.1


class MaskingCollator:
    """Pads examples and hides some of their tokens, the same ones however the examples are batched.

    The mask of an example is a function of the seed, the epoch and the example's own token ids. It does
    not depend on batch size, order, padding, workers, ranks or dropout, and no global random state is
    read or changed. So runs resume exactly and students compare. Identical examples get identical masks
    within an epoch.

    Each ordinary token (not special, not padding) is chosen with `mask_probability`, independently; if
    none was, the one with the smallest draw is, so that every example with an ordinary token has a
    prediction. Of the chosen, 80 % become the mask token, 10 % an ordinary token drawn uniformly from
    the vocabulary, 10 % stay. The unknown token counts as special.

    Call `set_epoch` before an epoch's iterator is made, for new masks; workers of a DataLoader see it.

    Args:
        tokenizer: Needs a mask token, and a padding token for examples of different lengths.
        mask_probability: Share of the ordinary tokens to predict, in (0, 1].
        whole_word: Choose all the pieces of a word together; `mask_probability` is then of words.
        seed: At least 0.

    Raises:
        TypeError: `seed` is not an integer.
        ValueError: No mask token, a value out of range, or a tokenizer that cannot tell words.

    Reference:
        Devlin et al., 2019, section 3.1 and appendix A.1.

    Example:
        >>> from hf_dwt.data import MaskingCollator, train_tokenizer
        >>> tokenizer = train_tokenizer(["to be or not to be"], vocab_size=40)
        >>> batch = MaskingCollator(tokenizer)([tokenizer("to be"), tokenizer("or not to be")])
        >>> sorted(batch)
        ['attention_mask', 'input_ids', 'labels']
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        mask_probability: float = 0.15,
        whole_word: bool = False,
        seed: int = 0,
    ) -> None:
        _check_settings(tokenizer, mask_probability, seed)
        self.tokenizer = tokenizer
        self.mask_probability = mask_probability
        self.whole_word = whole_word
        self.seed = seed
        self._special = special_tokens(tokenizer)
        self._ordinary_ids = np.flatnonzero(~self._special)
        self._boundaries = word_boundaries(tokenizer) if whole_word else None
        # In shared memory: persistent and spawned workers hold copies of the collator, not of this.
        self._epoch: Tensor | None = torch.zeros((), dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]

    def set_epoch(self, epoch: int) -> None:
        """Draws other masks from now on, in the workers too.

        Args:
            epoch: At least 0.

        Raises:
            ValueError: A negative or fractional epoch, or a collator made by `for_evaluation`.
        """
        if self._epoch is None:
            raise ValueError(
                "Masks for evaluation are the same in every epoch: call `set_epoch` on the collator that "
                "`for_evaluation()` was called on."
            )
        if not isinstance(epoch, int) or epoch < 0:
            raise ValueError(f"`epoch` must be an integer of at least 0, not {epoch!r}.")
        self._epoch.fill_(epoch)

    @property
    def epoch(self) -> int | None:
        """Whose masks are drawn; None for what `for_evaluation` returns."""
        return None if self._epoch is None else int(self._epoch)

    @property
    def follows_epochs(self) -> bool:
        """Whether `set_epoch` draws other masks; False for what `for_evaluation` returns."""
        return self._epoch is not None

    def for_evaluation(self) -> "MaskingCollator":
        """The same collator with masks that depend on the seed and the example only, never on an epoch."""
        evaluation = copy.copy(self)
        evaluation._epoch = None
        return evaluation

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """A batch of `input_ids`, `attention_mask`, `labels`, and `token_type_ids` if the examples have them.

        Args:
            features: Examples with `input_ids`. Tokens with 1 in a `special_tokens_mask` or 0 in the
                `attention_mask` are not chosen; other keys are dropped.

        Returns:
            Tensors of int64, shape (examples, longest). Labels are -100 where nothing is predicted.

        Raises:
            ValueError: Examples without `input_ids`, with `labels`, with token ids that the tokenizer
                does not have, or of different lengths without a padding token.
        """
        batch = pad_examples(features, self.tokenizer, side=self.tokenizer.padding_side)
        ids_EP, own_EP = batch["input_ids"], batch["attention_mask"] != 0
        self._check_ids(ids_EP)
        candidates_EP = own_EP & ~self._special[ids_EP]
        if "special_tokens_mask" in batch:
            candidates_EP &= batch.pop("special_tokens_mask") == 0
        choice_EP, action_EP, token_EP = self._draw(ids_EP, own_EP)
        chosen_EP = self._choose(ids_EP, candidates_EP, choice_EP)
        batch["labels"] = np.where(chosen_EP, ids_EP, -100)
        batch["input_ids"] = self._replace(ids_EP, chosen_EP, action_EP, token_EP)
        return {key: torch.from_numpy(array) for key, array in batch.items()}

    def _check_ids(self, ids_EP: NDArray[np.int64]) -> None:
        if ids_EP.size and not 0 <= ids_EP.min() <= ids_EP.max() < len(self._special):
            raise ValueError(
                f"The examples have token ids from {ids_EP.min()} to {ids_EP.max()}, the tokenizer only 0 to "
                f"{len(self._special) - 1}: tokenise the data set with this tokenizer."
            )

    def _draw(self, ids_EP: NDArray[np.int64], own_EP: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Three numbers in [0, 1) for each position: whether to choose it, what to do, which token."""
        when = "evaluation" if self._epoch is None else int(self._epoch)
        hasher = hashlib.blake2b(f"{self.seed}/{when}/".encode(), digest_size=16)
        generator = np.random.Philox(key=0)
        draws = np.ones((3, *ids_EP.shape))
        for example, (ids_P, own_P) in enumerate(zip(ids_EP, own_EP, strict=True)):
            own_ids = ids_P[own_P]
            keyed = hasher.copy()
            keyed.update(own_ids.astype("<i8").tobytes())
            draws[:, example, own_P] = _uniform(generator, keyed.digest(), 3 * len(own_ids)).reshape(3, -1)
        return draws

    def _choose(
        self, ids_EP: NDArray[np.int64], candidates_EP: NDArray[np.bool_], choice_EP: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        if self._boundaries is not None:
            choice_EP = np.take_along_axis(choice_EP, first_pieces(ids_EP, *self._boundaries), axis=1)
        smallest_E = np.where(candidates_EP, choice_EP, 1.0).min(axis=1, initial=1.0)
        chosen: NDArray[np.bool_] = (choice_EP < self.mask_probability) | (choice_EP == smallest_E[:, None])
        return chosen & candidates_EP

    def _replace(
        self,
        ids_EP: NDArray[np.int64],
        chosen_EP: NDArray[np.bool_],
        action_EP: NDArray[np.float64],
        token_EP: NDArray[np.float64],
    ) -> NDArray[np.int64]:
        masked_EP = chosen_EP & (action_EP < _SHARE_MASKED)
        random_EP = chosen_EP & ~masked_EP & (action_EP < _SHARE_MASKED + _SHARE_RANDOM)
        replaced = ids_EP.copy()
        replaced[masked_EP] = self.tokenizer.mask_token_id
        which = (token_EP[random_EP] * len(self._ordinary_ids)).astype(np.int64)
        replaced[random_EP] = self._ordinary_ids[which]
        return replaced


def first_pieces(ids_EP: NDArray[np.int64], starts: NDArray[np.bool_], ends: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The position of the first piece of each token's word.

    Args:
        ids_EP: Token ids, shape (examples, positions).
        starts: Which tokens start a word, shape (vocabulary,); see `word_boundaries`.
        ends: Which tokens end one.

    Returns:
        Shape (examples, positions). The first position starts a word, whatever its token.
    """
    starts_EP = starts[ids_EP]
    starts_EP[:, 1:] |= ends[ids_EP[:, :-1]]
    positions = np.arange(ids_EP.shape[1])
    return np.maximum.accumulate(np.where(starts_EP, positions, 0), axis=1)


def _uniform(generator: np.random.Philox, key: bytes, num: int) -> NDArray[np.float64]:
    """Numbers in [0, 1) that depend on the 16 bytes of `key` only.

    Raw output, since numpy keeps that the same between versions, unlike `Generator.random`. Setting the
    state is three times faster than a new generator for each example.
    """
    zeros = np.zeros(4, dtype=np.uint64)
    generator.state = {
        "bit_generator": "Philox",
        "state": {"counter": zeros, "key": np.frombuffer(key, dtype="<u8")},
        "buffer": zeros,
        "buffer_pos": 4,
        "has_uint32": 0,
        "uinteger": 0,
    }
    raw: NDArray[np.uint64] = generator.random_raw(num)
    # The upper 53 bits, as many as a float64 holds.
    return np.ldexp((raw >> np.uint64(11)).astype(np.float64), -53)


def _check_settings(tokenizer: PreTrainedTokenizerBase, mask_probability: float, seed: int) -> None:
    if tokenizer.mask_token_id is None:
        raise ValueError(
            "The tokenizer has no mask token: use a masked LM's tokenizer, add one with "
            '`tokenizer.add_special_tokens({"mask_token": "[MASK]"})` and resize the model\'s embeddings, '
            "or use `CausalCollator` for a causal LM."
        )
    if not 0 < mask_probability <= 1:
        raise ValueError(f"`mask_probability` must be above 0 and at most 1, not {mask_probability}.")
    if not isinstance(seed, int):
        raise TypeError(f"`seed` must be an integer, not {seed!r}.")
    if seed < 0:
        raise ValueError(f"`seed` must be at least 0, not {seed}.")
