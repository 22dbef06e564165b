"""Metrics equal those of scikit-learn and SciPy, and need no Hub."""

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from hf_dwt.finetuning.metrics import METRICS, compute_metric, load_metric

GENERATOR = np.random.default_rng(0)
TRUE, GUESSED = GENERATOR.integers(0, 2, (2, 200))
NUMBERS = GENERATOR.normal(size=200)
NEAR = NUMBERS + GENERATOR.normal(size=200)


@pytest.mark.parametrize(
    ("name", "value", "pair"),
    [
        ("accuracy", sklearn.metrics.accuracy_score(TRUE, GUESSED), (GUESSED, TRUE)),
        ("f1", sklearn.metrics.f1_score(TRUE, GUESSED), (GUESSED, TRUE)),
        ("matthews_correlation", sklearn.metrics.matthews_corrcoef(TRUE, GUESSED), (GUESSED, TRUE)),
        ("pearson", scipy.stats.pearsonr(NEAR, NUMBERS).statistic, (NEAR, NUMBERS)),
        ("spearman", scipy.stats.spearmanr(NEAR, NUMBERS).statistic, (NEAR, NUMBERS)),
    ],
)
def test_a_metric_equals_the_library_it_stands_on(name: str, value: float, pair: tuple[np.ndarray, np.ndarray]) -> None:
    assert compute_metric(name, pair[0].tolist(), pair[1].tolist()) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_right_predictions_score_one(name: str) -> None:
    assert compute_metric(name, [0, 1, 1, 0], [0, 1, 1, 0]) == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["f1", "matthews_correlation", "pearson", "spearman"])
def test_a_model_that_says_always_the_same_scores_zero_without_a_warning(name: str) -> None:
    assert compute_metric(name, [0, 0, 0, 0], [0, 1, 1, 0]) == 0.0


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(ValueError, match="There is no metric 'bleu': use one of accuracy"):
        load_metric("bleu")
