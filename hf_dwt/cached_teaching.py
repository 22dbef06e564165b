"""A teacher that is heard from a cache: the same part in a trainer as `Teaching`, without a model."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

from accelerate import Accelerator
from transformers import PreTrainedModel

from hf_dwt.arguments import DistillationArguments
from hf_dwt.cache.keys import tokenizer_fingerprint
from hf_dwt.cache.reading import CachedCollator, TeacherCache, take_excerpt
from hf_dwt.compatibility import judge
from hf_dwt.identity import TeacherIdentity
from hf_dwt.language_models import language_model_kind
from hf_dwt.positions import Positions
from hf_dwt.publishing.record import TeacherFacts
from hf_dwt.sampling import is_stream
from hf_dwt.teacher import Origin, Teacher
from hf_dwt.topk_losses import Excerpt


class CachedTeaching:
    """Checks that a cache fits the student, and adds what is in it to the batches.

    Args:
        cache: The teacher's predictions.
        choices: Must ask nothing of a model, see `require_no_model`; say whether a bad teacher is allowed.
        student: Unwrapped.
        processing_class: The student's tokenizer, if it is known.
        accelerator: Makes the loaders.

    Raises:
        ValueError: If cache and student do not fit together, or the loaders would cut what is cached.
    """

    def __init__(
        self,
        cache: TeacherCache,
        choices: DistillationArguments,
        student: PreTrainedModel,
        processing_class: Any | None,
        accelerator: Accelerator,
    ) -> None:
        manifest, where = cache.manifest, f"The cache {str(cache.folder)!r}"
        kind, tokens = language_model_kind(student), tokenizer_fingerprint(processing_class)
        if manifest.kind != kind:
            raise ValueError(f"{where} is of a {manifest.kind} language model, `model` is a {kind} one.")
        if None not in (tokens, manifest.tokenizer) and tokens != manifest.tokenizer:
            raise ValueError(
                f"{where} belongs to another tokenizer than `processing_class`: cache again with this one."
            )
        if student.config.get_text_config().vocab_size < manifest.num_shared_tokens:
            raise ValueError(
                f"{where} holds predictions of {manifest.num_shared_tokens:,} tokens, `model` knows fewer: cache again "
                "with the student's tokenizer."
            )
        require_no_model(choices)
        require_own_batches(accelerator.dispatch_batches)
        self.cache, self._choices = cache, choices
        told = manifest.teacher
        origin = Origin(told["name"], told["revision"], told["commit"])
        num_cached = manifest.num_examples * manifest.epochs
        self.facts = TeacherFacts(origin, told["architecture"], told["num_parameters"], num_cached=num_cached)
        # Of as many epochs: others repeat the first one's masks sooner, or later.
        cached = f"{manifest.identity:08x}-{manifest.epochs}"
        self.identity = TeacherIdentity(origin.name, origin.commit, cache=cached)
        self.teacher: Teacher | None = None

    def introduce(self, *_: Any) -> None:
        """Judge the teacher by what was measured when it was asked: on a sample of the same examples.

        Raises:
            ValueError: If it was no better than guessing.
        """
        impression = self.cache.manifest.impression
        assert impression is not None, "a cache that is complete has been begun"
        judge(self.facts, impression, allow_bad_teacher=self._choices.allow_bad_teacher)

    def new_probe(
        self, batches: Iterable[Mapping[str, Any]] | None, positions_of: Callable[..., Positions]
    ) -> NoReturn:
        """Refuse a policy that follows the gap.

        Raises:
            ValueError: Always.
        """
        raise ValueError("A policy that follows the gap asks the teacher about held-out data: pass it, not its cache.")

    def head_at(self, inputs: Mapping[str, Any], positions: Positions) -> NoReturn:
        """Refuse a batch without predictions.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            "A batch holds nothing of what the teacher said: it comes from a loader of your own. Let the trainer make "
            "the loader, or pass the teacher instead of its cache."
        )

    def let_go(self, step: int) -> None:
        """There is no model to be freed."""

    def refuse_as_broken(self, num_positions: int) -> NoReturn:
        """Refuse to go on with predictions that are not finite.

        Raises:
            FloatingPointError: Always.
        """
        raise FloatingPointError(f"The cache {str(self.cache.folder)!r} holds {num_positions} broken positions.")

    def collator(self, collator: Callable[[list[Any]], dict[str, Any]], dataset: Any) -> CachedCollator:
        """Let training batches hold what the teacher said about them.

        Raises:
            ValueError: If the data are a stream, or more than were cached.
        """
        if is_stream(dataset):
            raise ValueError(
                "A stream cannot be trained on from a cache: pass a data set of a known length whose examples have "
                "indices."
            )
        if len(dataset) > self.cache.manifest.num_examples:
            raise ValueError(
                f"`train_dataset` has {len(dataset):,} examples, the cache {str(self.cache.folder)!r} holds "
                f"{self.cache.manifest.num_examples:,}: it belongs to other data."
            )
        return CachedCollator(collator, self.cache)

    def epoch_of_masks(self, epoch: int) -> int:
        """Which of the cached epochs an epoch of training takes its masks from."""
        return epoch % self.cache.manifest.epochs

    def take_excerpt(self, inputs: Mapping[str, Any]) -> tuple[dict[str, Any], Excerpt | None]:
        """Part a batch into what models read and what the teacher said."""
        return take_excerpt(inputs, self.cache.manifest)


def require_own_batches(dispatch_batches: bool | None) -> None:
    """Check that each rank makes its batches itself.

    Raises:
        ValueError: If the first rank would make them for all.
    """
    if dispatch_batches:
        raise ValueError(
            "`dispatch_batches=True` cannot be used with a cache: batches would be cut by examples, but what it "
            "holds are rows of positions. Leave it out of `accelerator_config`."
        )


def require_no_model(choices: DistillationArguments) -> None:
    """Check that nothing is asked of a teacher that is heard from a cache which only the teacher itself could do.

    Raises:
        ValueError: Naming the choice, and what to do.
    """
    if choices.temperature != 1:
        raise ValueError(
            f"`temperature` must be 1 with a cache, got {choices.temperature}: the tokens that are not kept cannot "
            "be softened. Pass the teacher itself."
        )
    if choices.teacher_placement != "replicated":
        raise ValueError(
            f"`teacher_placement` says where a model is kept, got {choices.teacher_placement!r}; with a cache "
            "there is none: leave it out."
        )
    if choices.teacher_dtype is not None:
        raise ValueError(
            f"`teacher_dtype` says in which precision a model is run, got {choices.teacher_dtype!r}; with a cache "
            "there is none: leave it out, and cache a teacher that was loaded in that precision."
        )
    if choices.map_added_tokens_to_unknown:
        raise ValueError(
            "`map_added_tokens_to_unknown` says what a model is shown; with a cache there is none, and none of its "
            "examples holds a token that the teacher lacks: leave it out, or pass the teacher itself."
        )
