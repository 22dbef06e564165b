"""`hyperparameter_search` with `model_init` and a teacher, by the interface of transformers, no package needed."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudpickle
import pytest
import transformers.integrations
from accelerate.state import GradientState
from tiny_runs import examples, largest_difference, make_student, weights_of
from torch import Tensor
from trainer_runs import make_trainer, trained_weights, training_logs
from transformers import trainer as trainer_module
from transformers.hyperparameter_search import HyperParamSearchBackendBase
from transformers.trainer_utils import BestRun, HPSearchBackend

TRIALS = [
    {"learning_rate": 0.1, "soft_loss_weight": 3.0, "per_device_train_batch_size": 8},
    {"learning_rate": 0.3, "soft_loss_weight": 0.5, "per_device_train_batch_size": 4},
]
Trained = list[tuple[dict[str, Tensor], list[float]]]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Trained:
    """What each trial has trained and logged, once a search has run with the backend that this puts in."""
    found: Trained = []

    class InTurn(HyperParamSearchBackendBase):
        """Takes the trials as they are listed."""

        name = "optuna"

        @staticmethod
        def is_available() -> bool:
            return True

        def run(self, trainer: Any, n_trials: int, direction: str, **_: Any) -> BestRun:
            runs = []
            for number, params in enumerate(TRIALS[:n_trials]):
                trainer.train(trial=SimpleNamespace(number=number, params=params))
                found.append((weights_of(trainer.model), [each["soft_loss_weight"] for each in training_logs(trainer)]))
                objective = trainer.compute_objective(trainer.evaluate())
                runs.append(BestRun(str(number), objective, params))
            return min(runs, key=lambda run: run.objective)

    monkeypatch.setitem(trainer_module.ALL_HYPERPARAMETER_SEARCH_BACKENDS, HPSearchBackend.OPTUNA, InTurn)
    # It would ask the package what the trial is.
    monkeypatch.setattr(transformers.integrations, "hp_params", lambda trial: trial.params)
    return found


def test_each_trial_of_a_search_trains_as_a_run_of_its_own(trained: Trained, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"weighting": "constant", "max_steps": 3, "logging_steps": 1}
    settings |= {"train_sampling_strategy": "sequential", "eval_dataset": examples()}
    trainer = make_trainer(tmp_path, model_init=lambda: make_student(), **settings)
    best = trainer.hyperparameter_search(
        lambda trial: trial.params,
        compute_objective=lambda metrics: metrics["eval_loss"],
        n_trials=2,
        direction="minimize",
        backend="optuna",
    )
    objectives = []
    for (weights, logged), params in zip(trained, TRIALS, strict=True):
        alone = make_trainer(tmp_path, **settings, **params)
        alone.train()
        assert largest_difference(weights, weights_of(alone.model)) < 1e-5
        assert logged == [params["soft_loss_weight"]] * 3
        objectives.append(alone.evaluate()["eval_loss"])
    assert best.objective == pytest.approx(min(objectives), abs=1e-5)
    assert best.hyperparameters == TRIALS[objectives.index(min(objectives))]
    # The choices act: without a teacher the same trial ends elsewhere.
    without = trained_weights(tmp_path, teacher=None, **settings | {"weighting": "linear"} | {"learning_rate": 0.1})
    assert largest_difference(trained[0][0], without) > 1e-3


def test_a_search_by_ray_can_pickle_the_trainer(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, model_init=lambda: make_student())
    # As transformers leaves it out: each trial makes its own.
    trainer.model = None
    # Trainings of other tests leave weak references there, which every trainer shares.
    GradientState().dataloader_references = [None]
    assert cloudpickle.loads(cloudpickle.dumps(trainer)).args.output_dir == str(tmp_path)
