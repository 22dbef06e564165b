"""Spearman correlation of numbers, as for STS-B in GLUE; 0 where one side is constant."""

from collections.abc import Sequence

import datasets
import evaluate
from scipy.stats import spearmanr


class Spearman(evaluate.Metric):  # type: ignore[misc]
    """Spearman correlation of numbers, as for STS-B in GLUE; 0 where one side is constant."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({name: datasets.Value("float64") for name in ("predictions", "references")})
        return evaluate.MetricInfo(description=__doc__, citation="", inputs_description="", features=features)

    def _compute(self, predictions: Sequence[float], references: Sequence[float]) -> dict[str, float]:
        if len(set(predictions)) == 1 or len(set(references)) == 1:
            return {"spearman": 0.0}
        return {"spearman": float(spearmanr(predictions, references).statistic)}
