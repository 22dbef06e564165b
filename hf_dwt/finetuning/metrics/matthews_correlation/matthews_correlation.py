"""Matthews correlation of classes, as for CoLA in GLUE; 0 for one class only."""

from collections.abc import Sequence

import datasets
import evaluate
from sklearn.metrics import matthews_corrcoef


class MatthewsCorrelation(evaluate.Metric):  # type: ignore[misc]
    """Matthews correlation of classes, as for CoLA in GLUE; 0 for one class only."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({name: datasets.Value("int64") for name in ("predictions", "references")})
        return evaluate.MetricInfo(description=__doc__, citation="", inputs_description="", features=features)

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        return {"matthews_correlation": float(matthews_corrcoef(references, predictions))}
