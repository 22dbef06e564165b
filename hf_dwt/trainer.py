"""`DWTTrainer`: the Hugging Face `Trainer` with a weak teacher."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, TrainingArguments
from transformers.trainer_pt_utils import find_batch_size
from transformers.trainer_utils import EvalLoopOutput
from transformers.utils import logging

from hf_dwt import checkpoints, compatibility
from hf_dwt.adapting import AdaptingTrainer
from hf_dwt.arguments import DistillationArguments, DWTTrainingArguments
from hf_dwt.base_teaching import BaseTeaching
from hf_dwt.cached_teaching import CachedTeaching
from hf_dwt.collators import choose_collator, set_epoch
from hf_dwt.course import Course
from hf_dwt.evaluation.held_out import held_out_metrics, named_metrics, refuse_broken_teacher, sums_of_batch
from hf_dwt.evaluation.recorded import Recorded
from hf_dwt.events import TrainerEvents, WeightingHorizon
from hf_dwt.heads import Head, head_at, parts_of, total_over_parts, whole_head
from hf_dwt.hearing import TeacherSource, losses_against, make_teaching
from hf_dwt.identity import KeepsTeacher
from hf_dwt.language_models import language_model_kind
from hf_dwt.losses import blended_loss, share_of_step
from hf_dwt.placement import needs_whole_heads
from hf_dwt.positions import Positions, has_labels, num_positions, positions_of, select, without_labels
from hf_dwt.preflight import first_batches
from hf_dwt.probe import Probe
from hf_dwt.publishing.record import TeacherFacts
from hf_dwt.remapping.verify import evaluating
from hf_dwt.sampling import probe_data
from hf_dwt.signals import Weights
from hf_dwt.teacher import Teacher
from hf_dwt.teaching import Teaching
from hf_dwt.topk_losses import Excerpt
from hf_dwt.training_log import TrainingLog

logger = logging.get_logger(__name__)


class DWTTrainer(AdaptingTrainer):
    """`Trainer` that blends the language-modelling loss with what a smaller, frozen teacher predicts.

    Everything that `Trainer` takes keeps its name, position, default and meaning. Without a teacher it trains the
    student alone, on the same code path: the baseline. A model that is no masked or causal language model is trained
    as by `Trainer`, and cannot have a teacher.

    Differences from `Trainer`, for language models:

    - With no collator and no `labels` column a masked LM gets a `MaskingCollator`, a causal LM a `CausalCollator`.
    - The loss is the mean over all positions of an optimiser step, over ranks; heads run at the positions only.
    - `eval_loss` is the hard loss alone (no label smoothing), per position over the whole set.
    - With `push_to_hub=True` the student is also pushed at the end of `train()`, whatever `hub_strategy` says.
    - Logs also hold `hard_loss`, `soft_loss`, `soft_loss_weight`, `teacher_hard_loss` and `train_gap` (student's hard
      loss minus teacher's, nats), evaluations `eval_perplexity`, `eval_accuracy`, `eval_soft_loss`,
      `eval_teacher_hard_loss`, `eval_agreement` and `eval_gap`.

    What happens to the options of `Trainer` that touch the loss:

    | option | with a language model |
    |---|---|
    | `label_smoothing_factor` | applies to the hard loss in training |
    | `compute_loss_func` | used instead of all of this without a teacher; refused with one |
    | `use_liger_kernel` | refused: it would replace the head whose logits are compared |
    | tensor, context and sequence parallelism | refused |
    | `neftune_noise_alpha` | noises the student's embeddings, not the teacher's |
    | `n_gpu > 1` without a launcher | refused: `nn.DataParallel` cannot gather positions; use torchrun |
    | quantised teachers, `device_map` over several devices | refused |
    | auxiliary losses (`output_router_logits`) | refused |

    Args:
        model: The student.
        args: `DWTTrainingArguments`; plain `TrainingArguments` take the defaults of the rest.
        teacher: A `Teacher`, a language model (which is frozen), a Hub id, a folder, a `TeacherCache`, or "base": the
            student's own base, with its adapter off. None trains the student alone, on the hard loss with weight 1.
        peft_config: Of peft; an adapter on the model is then trained, and saved, in its place.

    Raises:
        TypeError: If there is a teacher and the student, or the teacher, is no masked or causal language model.
        ValueError: If teacher and student do not fit together, or an option above is refused.

    Reference:
        Lee et al., 2023 (https://arxiv.org/abs/2305.18239).

    Example:
        >>> from transformers import BertConfig, BertForMaskedLM
        >>> teacher = BertForMaskedLM(BertConfig(vocab_size=9, hidden_size=12, num_hidden_layers=1))
        >>> student = BertForMaskedLM(BertConfig(vocab_size=9, hidden_size=24, num_hidden_layers=2))
        >>> args = DWTTrainingArguments("student", use_cpu=True, report_to="none")
        >>> DWTTrainer(student, args, teacher=teacher).teacher.kind
        'masked'
    """

    compute_metrics: Any
    loss_is_scaled_for_ga: bool | None

    def __init__(
        self,
        model: PreTrainedModel | nn.Module | None = None,
        args: TrainingArguments | None = None,
        data_collator: Callable[[list[Any]], dict[str, Any]] | None = None,
        *trainer_args: Any,
        teacher: TeacherSource | None = None,
        peft_config: Any | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        if "teacher_model" in trainer_kwargs:
            raise TypeError("`teacher_model` is called `teacher` here.")
        args = DWTTrainingArguments("tmp_trainer") if args is None else args
        super().__init__(model, args, data_collator, *trainer_args, peft_config=peft_config, **trainer_kwargs)
        self.choices = args if isinstance(args, DistillationArguments) else DistillationArguments()
        self._teaching: Teaching | CachedTeaching | None = None
        self._probe: Probe | None = None
        self._held_out_sums: list[Tensor] = []
        takes_users_loss = self.compute_loss_func is not None and teacher is None
        self.kind = None if takes_users_loss else language_model_kind(self.model)
        if self.kind is None:
            compatibility.refuse_teacher(self.model, teacher)
            compatibility.warn_of_unused_choices(self.choices)
            return
        compatibility.refuse_options(self, has_teacher=teacher is not None)
        self._positions_of = partial(positions_of, self.kind)
        self.model_accepts_loss_kwargs = True
        # A subclass with a loss of its own may say that it is not.
        self.loss_is_scaled_for_ga = self.loss_is_scaled_for_ga is not False
        self.course = Course(self.choices)
        self._training_log = TrainingLog()
        self.data_collator = choose_collator(
            self.kind,
            data_collator,
            default=self.data_collator,
            train_dataset=self.train_dataset,
            eval_dataset=self.eval_dataset,
            processing_class=self.processing_class,
            seed=self.data_seed,
        )
        if teacher is None:
            compatibility.warn_of_unused_choices(self.choices)
        else:
            self._teaching = make_teaching(teacher, self.choices, self.model, self.processing_class, self.accelerator)
            self._let_go_of_the_unneeded()
            self.add_callback(WeightingHorizon())
            self.add_callback(KeepsTeacher(self._teaching.identity))
            self.add_callback(self.course)
        self.add_callback(TrainerEvents(self))

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Blend the hard and the soft loss of a micro-batch, as its share of the mean over the optimiser step.

        Reference:
            Lee et al., 2023, equation 3.
        """
        if self.kind is None or not has_labels(inputs):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        (inputs, told), weights = self._parted(inputs), self.weights()
        positions = self._positions_of(inputs)
        outputs = model(**without_labels(inputs)) if return_outputs else None
        # First, so that what it needs on the way is gone before the student keeps activations.
        teacher: Head | Excerpt | None = None
        # Two ranks cannot disagree here: the weights follow from the step and from gaps that are gathered, no rank's
        # own, so each rank asks the teacher about each of its micro-batches or about none. See `Course.weights`.
        if weights.soft:
            teacher = self._ask(inputs, positions) if told is None else told
        student = self._head(model, inputs, positions) if outputs is None else whole_head(select(outputs[0], positions))
        factors = {"hard_loss_weight": weights.hard, "soft_loss_weight": weights.soft * self.choices.soft_loss_scale}
        settings = {"temperature": self.choices.temperature, "label_smoothing": self.args.label_smoothing_factor}

        def blend(student_logits: Tensor, rows: slice) -> Tensor:
            losses, knows = losses_against(teacher, student_logits, positions.labels[rows], rows, **settings)
            loss = blended_loss(losses.hard, losses.soft, **factors)
            if self.is_in_train and model.training:
                self._training_log.add(losses, loss, weights.soft)
                if knows is not None:
                    self._training_log.add_teacher(losses, knows)
            return loss

        total = total_over_parts(student, blend)
        loss = share_of_step(total, len(positions) if num_items_in_batch is None else num_items_in_batch)
        # Data-parallel ranks average their gradients; `num_items` counts all of them.
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def weights(self) -> Weights:
        """Weights of the current optimiser step: the policy's, or the hard loss alone without a teacher."""
        return Weights(hard=1.0, soft=0.0, for_good=True) if self._teaching is None else self.course.weights(self.state)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        """Count the positions of an optimiser step, over micro-batches and ranks."""
        if self.kind is None or not batch_samples or not has_labels(batch_samples[0]):
            return super()._get_num_items_in_batch(batch_samples, device)
        count = torch.stack([num_positions(self.kind, batch) for batch in batch_samples]).sum().to(device)
        if self.args.average_tokens_across_devices:
            count = self.accelerator.reduce(count)
        return count

    def _head(self, model: nn.Module, inputs: Mapping[str, Any], positions: Positions) -> Head:
        """Run the student up to its head, which is run in parts where the engine allows it."""
        num_tokens = self.model.config.get_text_config().vocab_size
        parts = [slice(None)] if needs_whole_heads(self.accelerator) else parts_of(positions, num_tokens)
        head = head_at(model, without_labels(inputs), positions, parts)

        def logits_of(states: Tensor) -> Tensor:
            # Autocast is around the whole forward pass; a part may be run by a model inside of it, such as PEFT's base.
            with self.accelerator.autocast():
                return head.logits_of(states)

        return replace(head, logits_of=logits_of)

    def _parted(self, inputs: Any) -> tuple[Any, Excerpt | None]:
        return (inputs, None) if self._teaching is None else self._teaching.take_excerpt(inputs)

    def _ask(self, inputs: Mapping[str, Any], positions: Positions) -> Head:
        return cast(Teaching, self._teaching).head_at(inputs, positions)

    def teacher_facts(self) -> TeacherFacts | None:
        """What is known of the teacher, None without one."""
        return None if self._teaching is None else self._teaching.facts

    @property
    def teacher(self) -> Teacher | None:
        """The teacher, None without one or once it has been let go."""
        return None if self._teaching is None else self._teaching.teacher

    def before_training(self) -> None:
        """Check data and teacher before the first step; a `ValueError` says what is wrong with them."""
        if self._teaching is None:
            self.course.require_untaught(self.state)
        self._training_log = TrainingLog()
        sampled = self.look_at(self.train_dataset)
        batches = [] if sampled is None else first_batches(sampled, self._positions_of)
        self._let_go_of_the_unneeded()
        if self._teaching is not None and not self.weights().for_good:
            if isinstance(self._teaching, BaseTeaching):
                self._teaching.student = self.model
            student = None if self.state.global_step else self.model
            self._teaching.introduce(list(map(self._prepare_inputs, batches)), self._positions_of, student)
            if self.course.follows_gap:
                self._probe = self._teaching.new_probe(self.look_at(probe_data(self)), self._positions_of)

    def training_collator(self, collator: Any, dataset: Any) -> Any:
        """What makes batches of the training data, with what a cached teacher says of them."""
        return collator if self._teaching is None else self._teaching.collator(collator, dataset)

    def before_epoch(self, epoch: int) -> None:
        """Draw new masks, and a new order of grouped lengths."""
        self.begin_order(epoch)
        set_epoch(self.data_collator, self._teaching.epoch_of_masks(epoch) if self._teaching is not None else epoch)

    def before_step(self) -> None:
        """Show the policy the gap when it is due, and let the teacher go if it will not be asked again."""
        if self._probe is not None and self.teacher is not None and self.course.probe_is_due(self.state):
            with evaluating(self.model_wrapped), self.compute_loss_context_manager():
                self.log(self.course.look(self._probe, partial(self._head, self.model_wrapped), self._ask))
        if self._teaching is not None:
            weights = self.course.begin_step(self.state)
            if weights.for_good and self._probe is not None and self.teacher is not None:
                self.log(self.course.handover_costs(self.state, self.args))
        self._let_go_of_the_unneeded()

    def _let_go_of_the_unneeded(self) -> None:
        if self._teaching is not None and self.teacher is not None and self.weights().for_good:
            self.refuse_broken_teacher()
            self._teaching.let_go(self.state.global_step)

    def refuse_broken_teacher(self) -> None:
        """Stop, by a `FloatingPointError`, before anything is logged or saved that a broken teacher has spoilt."""
        broken = self._training_log.num_broken_positions(self.accelerator.reduce)
        if broken and self._teaching is not None:
            self._teaching.refuse_as_broken(broken)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the two losses, the weight and the gap to what `Trainer` logs of training."""
        if self.kind is not None and {"loss", "learning_rate"} <= logs.keys():
            self.refuse_broken_teacher()
            logs |= self._training_log.pop_means(self.accelerator.reduce, self.args.logging_nan_inf_filter)
        super().log(logs, start_time)

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Add the figures of the held-out set; what a user's `compute_metrics` returns wins."""
        given = (dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        self._held_out_sums = []
        users, recorded = self.compute_metrics, Recorded(self.compute_metrics)
        self.compute_metrics = users and recorded
        try:
            output = super().evaluation_loop(*given)
        finally:
            self.compute_metrics = users
        if self._held_out_sums:
            if self.teacher is not None:
                refuse_broken_teacher(self._held_out_sums, self.teacher.origin)
            ours = held_out_metrics(self._held_out_sums, self.args.logging_nan_inf_filter)
            # The loss that `Trainer` puts there is a mean of batch means.
            output.metrics.pop(f"{metric_key_prefix}_loss", None)
            output.metrics.update(named_metrics(ours, recorded.result, metric_key_prefix))
        return output

    def prediction_step(
        self, model: nn.Module, inputs: Any, prediction_loss_only: bool, ignore_keys: Any = None
    ) -> Any:
        """Score a batch; logits keep the shape that `Trainer` gives them, where they are asked for."""
        if self.kind is None or not has_labels(inputs):
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        inputs = self._prepare_inputs(inputs)
        positions = self._positions_of(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            if prediction_loss_only:
                logits = labels = None
                student = self._head(model, inputs, positions)
            else:
                recorded = Recorded(model)
                logits = super().prediction_step(recorded, without_labels(inputs), False, ignore_keys)[1]
                labels = inputs.get("labels", inputs.get("shift_labels"))
                student = whole_head(select(recorded.result[0], positions))
            teacher = None if self.teacher is None else self._ask(inputs, positions)
            sums = sums_of_batch(find_batch_size(inputs), positions, student, teacher, self.choices.temperature)
        self._held_out_sums.append(self.accelerator.gather_for_metrics(sums).cpu())
        return sums.select(-1, 1).sum() / max(len(positions), 1), logits, labels

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Train as `Trainer` does; a checkpoint that was half-written when a run died is never resumed from.

        Raises:
            FileNotFoundError: If the checkpoint to resume from does not exist.
            ValueError: If it is half-written, holds the model alone, or there is none.
        """
        checkpoint = checkpoints.checkpoint_to_resume(resume_from_checkpoint, self.args.output_dir)
        return super().train(checkpoint, *args, **kwargs)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        if self.kind is not None:
            self.refuse_broken_teacher()
        if self.args.should_save:
            folder = checkpoints.checkpoint_folder(self._get_output_dir(trial), self.state.global_step)
            checkpoints.make_room(folder, self.args.save_total_limit)
        super()._save_checkpoint(model, trial)
