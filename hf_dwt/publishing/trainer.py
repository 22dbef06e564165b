"""The part of the trainer that saves and pushes the student."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from huggingface_hub import CommitInfo
from transformers import PreTrainedModel, Trainer
from transformers.trainer_utils import HubStrategy, has_length, unwrap_peft_model
from transformers.utils import logging
from transformers.utils.hub import PushInProgress

from hf_dwt.adapters import describe, is_adapted, without_card_of_peft
from hf_dwt.arguments import DistillationArguments
from hf_dwt.costs import StepCost, configured_flops
from hf_dwt.hub.files import checkpoint_files, snapshot_of, student_files
from hf_dwt.hub.push import PushFailed, failure, prepare, push_or_tell, target_of
from hf_dwt.hub.transience import Patience
from hf_dwt.language_models import Kind
from hf_dwt.publishing.card import CARD_FILE, CURVES_FILE, card_of
from hf_dwt.publishing.curves import draw_curves
from hf_dwt.publishing.record import (
    Repetition,
    TeacherFacts,
    TrainingFacts,
    record_of,
    without_tokens,
    write,
)
from hf_dwt.publishing.results import is_over
from hf_dwt.publishing.tally import Tally
from hf_dwt.remapping.plan import save_plan_of
from hf_dwt.self_restoring import set_aside

logger = logging.get_logger(__name__)


class PublishingTrainer(Trainer):  # type: ignore[misc]
    """`Trainer` whose pushes are checked before training, made of one commit, and told when they fail.

    With `push_to_hub=True` the student is also pushed at the end of `train()`.

    Attributes:
        patience: With the Hub; may be replaced.
        data_sources: Data sets of the Hub that the training set was made of, each with `name` and `revision`.
        repetition: What the record says of repeating the run, where it can be repeated from that alone.
    """

    kind: Kind | None = None
    choices: DistillationArguments
    patience = Patience()
    tally: Tally
    data_sources: Sequence[Mapping[str, str | None]] = ()
    repetition: Repetition | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.tally = Tally()
        self._failed_pushes: list[Exception] = []
        super().__init__(*args, **kwargs)
        self.add_callback(self.tally)

    def teacher_facts(self) -> TeacherFacts | None:
        """What is known of the teacher, None without one."""
        return None

    def train(self, resume_from_checkpoint: str | bool | None = None, trial: Any = None, *args: Any, **kws: Any) -> Any:
        """Train, then push the student if `push_to_hub` is set.

        Raises:
            PushFailed: If it, or a push in the background, could not be pushed; everything is on disk.
        """
        self._failed_pushes = []
        output = super().train(resume_from_checkpoint, trial, *args, **kws)
        if self.args.push_to_hub and trial is None:
            self.push_to_hub(revision=self.args.hub_revision)
            self._on_first_rank(self._raise_failed_pushes)
        return output

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Count the tokens on the way."""
        tokens = inputs.get("input_ids")
        if isinstance(tokens, torch.Tensor) and self.is_in_train:
            self.tally.add(tokens, inputs.get("labels"))
        return int(super().floating_point_ops(inputs))

    def _load_callback_state(self) -> None:
        with set_aside(self):
            super()._load_callback_state()

    # Saving

    def record(self) -> dict[str, Any] | None:
        """The student's record, None for what is no language model."""
        adapted = self.accelerator.unwrap_model(self.model)
        student = unwrap_peft_model(adapted)
        if self.kind is None or not isinstance(student, PreTrainedModel):
            return None
        dataset = self.train_dataset
        training = TrainingFacts(
            steps=self.state.global_step,
            tokens=self.tally.tokens * self.accelerator.num_processes,
            seconds=self.tally.seconds,
            teacher_share=self._teacher_share(),
            num_examples=len(dataset) if dataset is not None and has_length(dataset) else None,
            sources=self.data_sources,
            log_history=self.state.log_history,
            planned_steps=self.state.max_steps,
            best_step=self._step_of_best_model(),
        )
        return record_of(
            student,
            self.args,
            kind=self.kind,
            choices=self.choices,
            teacher=self.teacher_facts(),
            training=training,
            processing_class=self.processing_class,
            repetition=self.repetition,
            adapter=describe(adapted),
        )

    def _step_of_best_model(self) -> int | None:
        """Step whose weights were loaded when training had ended; None while it goes on, and if that was not asked."""
        loaded = self.args.load_best_model_at_end and self.state.best_model_checkpoint is not None
        return self.state.best_global_step if loaded and is_over(self.state.log_history) else None

    def _teacher_share(self) -> float | None:
        """Share of a distilled step's operations that is the teacher's; None while, or where, it is not known."""
        teacher = self.teacher_facts()
        # Of an adapted student most weights need no gradient: the count of a step does not hold.
        adapted = is_adapted(self.accelerator.unwrap_model(self.model))
        if teacher is None or teacher.config is None or self.tally.shape is None or adapted:
            return None
        return self._share_of_first_batch

    @cached_property
    def _share_of_first_batch(self) -> float | None:
        """That share, counted once: batches of other lengths differ little."""
        student, teacher = self.accelerator.unwrap_model(self.model), self.teacher_facts()
        assert self.kind is not None
        assert teacher is not None
        assert self.tally.shape is not None
        try:
            costs = (configured_flops(each, self.kind, *self.tally.shape) for each in (student.config, teacher.config))
            return StepCost(*costs).teacher_share
        except ValueError:
            return None

    def _save_rng_state(self, output_dir: str) -> None:
        """Save the generators, the last file but one: no rank may still be writing when the state is written."""
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = output_dir or self.args.output_dir
        with without_tokens(self.args), without_card_of_peft(self.accelerator.unwrap_model(self.model), folder):
            super()._save(output_dir, state_dict)
        if self.args.should_save:
            student = unwrap_peft_model(self.accelerator.unwrap_model(self.model))
            save_plan_of(student, folder, self.state.global_step)
            record = self.record()
            if record is not None:
                write(record, folder)

    def create_model_card(
        self,
        language: str | list[str] | None = None,
        license: str | None = None,
        tags: str | list[str] | None = None,
        model_name: str | None = None,
        finetuned_from: str | None = None,
        tasks: str | list[str] | None = None,
        dataset_tags: str | list[str] | None = None,
        dataset: str | list[str] | None = None,
        dataset_args: str | list[str] | None = None,
    ) -> None:
        """Write the model card, and the curves, into `output_dir`.

        The arguments are those of `Trainer`. Of a language model the record knows `finetuned_from`, `tasks`, `dataset`
        and `dataset_args`: they are warned about, and have no effect.
        """
        known = {"finetuned_from": finetuned_from, "tasks": tasks, "dataset": dataset, "dataset_args": dataset_args}
        record = self.record()
        if record is None:
            ours = {"language": language, "license": license, "tags": tags, "model_name": model_name}
            super().create_model_card(**ours, **known, dataset_tags=dataset_tags)
        elif self.is_world_process_zero():
            unused = [f"`{name}`" for name, value in known.items() if value is not None]
            if unused:
                told = f"The model card is made from the record of the run: {', '.join(unused)} have no effect."
                logger.warning(f"{told} Data sets of the Hub are named by `dataset_tags`.")
            folder = Path(self.args.output_dir)
            card = card_of(
                record,
                model_name or folder.absolute().name,
                has_curves=draw_curves(self.state.log_history, folder / CURVES_FILE),
                tags=_as_list(tags),
                datasets=_as_list(dataset_tags),
                language=language,
                licence=license,
            )
            (folder / CARD_FILE).write_text(card, encoding="utf-8")

    # Pushing

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Make the repository and the branch, and check that they may be written to: before any training.

        Raises:
            PermissionError: If they may not.
            OSError: If the Hub does not answer.
        """
        self.push_in_progress = None
        wanted = target_of(self.args, self.patience, token=token)
        private = self.args.hub_private_repo if private is None else private
        target = self._on_first_rank(lambda: prepare(wanted, private))
        self.hub_model_id = wanted.repo_id if target is None else target.repo_id

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **card: Any,
    ) -> CommitInfo | Future[CommitInfo] | None:
        """Push the student, its card, record and curves as one commit.

        Args:
            commit_message: Of the commit.
            blocking: False returns a future at once.
            token: Instead of `hub_token`.
            revision: Branch, instead of `hub_revision`.
            private: Whether the repository is private, if it has to be made.
            **card: Arguments of `create_model_card`.

        Returns:
            The commit; None on other ranks than the first.

        Raises:
            PushFailed: If it could not be pushed; it is on disk.
            TypeError: If `create_model_card` has no argument of a name.
        """
        # Before anything is saved, and on all ranks.
        signature(self.create_model_card).bind(**card)
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        if self.hub_model_id is None or token is not None or revision not in (None, self.args.hub_revision):
            wanted = target_of(self.args, self.patience, repo_id=self.hub_model_id, token=token, revision=revision)
            prepared = self._on_first_rank(lambda: prepare(wanted, private))
            target = wanted if prepared is None else prepared
            self.hub_model_id = target.repo_id
        else:
            target = target_of(self.args, self.patience, repo_id=self.hub_model_id)
        self.save_model(_internal_call=True)
        self._finish_current_push()

        def push_student() -> CommitInfo | Future[CommitInfo]:
            folder = self.args.output_dir
            try:
                self.create_model_card(**{"model_name": target.repo_id.split("/")[-1], **card})
            except OSError as error:
                raise failure(error, target, folder) from error
            job = self._pusher.submit(push_or_tell, student_files(folder), target, commit_message or "", folder)
            return job.result() if blocking else job

        pushed: CommitInfo | Future[CommitInfo] | None = self._on_first_rank(push_student)
        return pushed

    @cached_property
    def _pusher(self) -> ThreadPoolExecutor:
        """Pushes one after another; made by the first push, since a search by Ray pickles the trainer."""
        return ThreadPoolExecutor(max_workers=1, thread_name_prefix="push")

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Push a checkpoint's student in the background, and the checkpoint itself if that was asked for."""
        if not self.is_world_process_zero() or self.args.hub_strategy == HubStrategy.END:
            return
        busy = self.push_in_progress is not None and not self.push_in_progress.is_done()
        if busy and not self.args.hub_always_push:
            return
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        files = student_files(checkpoint_folder)
        names = {HubStrategy.CHECKPOINT: "last-checkpoint", HubStrategy.ALL_CHECKPOINTS: Path(checkpoint_folder).name}
        if self.args.hub_strategy in names:
            files |= checkpoint_files(checkpoint_folder, names[self.args.hub_strategy])
        snapshot = snapshot_of(files, self.args.output_dir)
        kept = snapshot.__enter__()
        message = f"Training in progress, step {self.state.global_step}"
        target = target_of(self.args, self.patience, repo_id=self.hub_model_id)
        job = self._pusher.submit(push_or_tell, kept, target, message, checkpoint_folder)
        job.add_done_callback(lambda done: self._note(done, snapshot))
        earlier: list[Any] = self.push_in_progress.jobs if busy and self.push_in_progress is not None else []
        self.push_in_progress = PushInProgress([*earlier, job])

    def _note(self, done: "Future[CommitInfo]", snapshot: Any) -> None:
        snapshot.__exit__(None, None, None)
        error = done.exception()
        if isinstance(error, Exception):
            logger.error(f"A push in the background has failed. {error}")
            self._failed_pushes.append(error)

    def _raise_failed_pushes(self) -> None:
        if self._failed_pushes:
            raise PushFailed(
                f"The final student was pushed, but {len(self._failed_pushes)} pushes during training were not. The "
                f"last of them: {self._failed_pushes[-1]}"
            )

    def _on_first_rank(self, call: Callable[[], Any]) -> Any:
        """Call on the first rank alone; where that fails, all ranks do, so that none waits for ever."""
        result, error = None, None
        if self.is_world_process_zero():
            try:
                result = call()
            except Exception as raised:
                error = raised
        told = [None if error is None else str(error)]
        if self.accelerator.num_processes > 1:
            broadcast_object_list(told)
        if error is not None:
            raise error
        if told[0] is not None:
            raise PushFailed(told[0])
        return result


def _as_list(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])
