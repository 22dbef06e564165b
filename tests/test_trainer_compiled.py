"""`torch_compile` beside a teacher: the compiled student is what is called, and trains as the plain one."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import KINDS, largest_difference, weights_of
from trainer_runs import make_trainer

pytestmark = pytest.mark.slow

# Graphs of one function before its sizes are taken as unknown: the first size, and any other.


@pytest.mark.parametrize("kind", KINDS)
def test_a_compiled_student_trains_as_the_plain_one_and_is_not_compiled_for_each_number_of_positions(
    kind: str, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"max_steps": 12, "train_sampling_strategy": "sequential"}
    plain = make_trainer(tmp_path, kind, **settings)
    plain.train()
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    trainer = make_trainer(tmp_path, kind, torch_compile=True, torch_compile_backend="aot_eager", **settings)
    graphs = []
    compute_loss = trainer.compute_loss

    def counting(*args: Any, **kwargs: Any) -> Any:
        loss = compute_loss(*args, **kwargs)
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
        return loss

    trainer.compute_loss = counting
    trainer.train()
    assert isinstance(trainer.model_wrapped, torch._dynamo.OptimizedModule)
    assert largest_difference(weights_of(plain.model), weights_of(trainer.model)) < 1e-5
    assert graphs[0] > 0
    assert graphs[-1] == graphs[len(graphs) // 2]
