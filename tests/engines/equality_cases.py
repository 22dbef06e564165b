"""What one process and each of two ranks compute alike, under every engine."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from engines import optimiser_share, own_shares, settings_of, whole_weights
from rank_cases import CountsOwnRank, WithoutFactor, make_trainer, pair_that_often_agrees, uneven_examples
from tiny_runs import KINDS, arguments, examples, make_student
from transformers import Trainer, TrainerCallback

from hf_dwt import DWTTrainer, heads

# Of 20 examples the third step takes what is left, 4: one micro-batch of a rank where the others take two.
NUM_EXAMPLES = 20
# The soft-loss weight falls, or is 0 from half of the run on, when the teacher is let go.
WEIGHTINGS: dict[str, dict[str, Any]] = {
    "linear": {},
    "to zero": {"weighting": "step", "final_soft_loss_weight": 0.0, "weighting_kwargs": {"at": 0.5}},
}
# Teachers' places beside the first, 'replicated'.
PLACES = {"ddp": ("offload",), "zero3": ("sharded", "offload"), "fsdp2": ("sharded",)}
SIZES = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}


class Looks(TrainerCallback):
    """Notes after the first step how student and teacher are divided."""

    def __init__(self) -> None:
        self.trainer: DWTTrainer | None = None
        self.seen: dict[str, Any] = {}

    def on_step_end(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
        if state.global_step == 1 and self.trainer is not None:
            trainer = self.trainer
            self.seen = {
                "wrapper": type(trainer.model_wrapped).__name__,
                "student": own_shares(trainer.model),
                "teacher": {} if trainer.teacher is None else own_shares(trainer.teacher.model),
                "optimiser": optimiser_share(trainer),
            }


def trained(
    folder: Path, kind: str, weighting: str = "linear", trainer_class: type[DWTTrainer] = DWTTrainer, **settings: Any
) -> dict[str, Any]:
    """Weights and logs of four steps over the end of an epoch, and how the models were divided meanwhile."""
    order = {"train_sampling_strategy": "sequential", "logging_steps": 1, "max_steps": 4, "temperature": 2.0}
    looks = Looks()
    trainer = make_trainer(
        folder,
        kind,
        train_dataset=uneven_examples(kind).select(range(NUM_EXAMPLES)),
        trainer_class=trainer_class,
        callbacks=[looks],
        **{**order, **WEIGHTINGS[weighting], **settings},
    )
    looks.trainer = trainer
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    teacher_is_there, looks.trainer = trainer.teacher is not None, None
    return {"weights": whole_weights(trainer.model), "logs": logs, "teacher at the end": teacher_is_there, **looks.seen}


def trained_in_parts(folder: Path, **settings: Any) -> dict[str, Any]:
    """The same, with heads that are run at three positions at a time where that can be done."""
    most = heads._MOST_LOGITS_ON_CPU
    heads._MOST_LOGITS_ON_CPU = 3 * make_student().config.vocab_size
    try:
        return trained(folder, **settings)
    finally:
        heads._MOST_LOGITS_ON_CPU = most


def trained_by_the_stock_trainer(folder: Path, **settings: Any) -> dict[str, Any]:
    """Weights that `Trainer` comes to on the same examples, without a teacher."""
    settings |= {"train_sampling_strategy": "sequential", "max_steps": 4}
    dataset = uneven_examples("masked").select(range(NUM_EXAMPLES))
    trainer = Trainer(make_student("masked"), arguments(folder, **settings), train_dataset=dataset)
    trainer.train()
    return {"weights": whole_weights(trainer.model)}


def evaluated(folder: Path, kind: str, **settings: Any) -> dict[str, Any]:
    """Figures of 11 examples in batches of 4, after a step of no size, since some engines start with training only."""
    rows = examples(num=11)
    models = pair_that_often_agrees(kind)
    sizes = {"per_device_train_batch_size": 4, "per_device_eval_batch_size": 4, "max_steps": 1, "learning_rate": 0.0}
    trainer = make_trainer(
        folder, kind, train_dataset=rows, eval_dataset=rows, temperature=2.0, **{**models, **sizes, **settings}
    )
    trainer.train()
    timed = ("runtime", "per_second", "preparation_time", "epoch")
    return {name: value for name, value in trainer.evaluate().items() if not name.endswith(timed)}


def cases_of(engine: str) -> dict[str, Callable[[Path], dict[str, Any]]]:
    """All cases of an engine by name."""
    chosen = settings_of(engine)
    cases: dict[str, Any] = {}
    for place in ("replicated", *PLACES.get(engine, ())):
        for kind in KINDS:
            for weighting in WEIGHTINGS:
                own = {**chosen, **SIZES, "teacher_placement": place}
                cases[f"{engine} {place} {kind} {weighting}"] = partial(trained, kind=kind, weighting=weighting, **own)
    for kind in KINDS:
        cases[f"{engine} {kind} in parts"] = partial(trained_in_parts, kind=kind, **chosen, **SIZES)
        place = "sharded" if engine in ("zero3", "fsdp2") else "replicated"
        cases[f"{engine} {kind} evaluation"] = partial(evaluated, kind=kind, teacher_placement=place, **chosen)
    cases[f"{engine} bfloat16"] = partial(trained, kind="masked", bf16=True, **chosen, **SIZES)
    if engine in ("ddp", "zero2"):
        for name, wrong in {"without factor": WithoutFactor, "counts own rank": CountsOwnRank}.items():
            cases[f"{engine} {name}"] = partial(trained, kind="masked", trainer_class=wrong, **chosen, **SIZES)
        cases[f"{engine} stock"] = partial(trained_by_the_stock_trainer, **chosen, **SIZES)
    return cases
