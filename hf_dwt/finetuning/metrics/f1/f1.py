"""F1 of class 1, as for MRPC and QQP in GLUE; 0 where class 1 is neither there nor predicted."""

from collections.abc import Sequence

import datasets
import evaluate
from sklearn.metrics import f1_score


class F1(evaluate.Metric):  # type: ignore[misc]
    """F1 of class 1, as for MRPC and QQP in GLUE; 0 where class 1 is neither there nor predicted."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({name: datasets.Value("int64") for name in ("predictions", "references")})
        return evaluate.MetricInfo(description=__doc__, citation="", inputs_description="", features=features)

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        return {"f1": float(f1_score(references, predictions, zero_division=0))}
