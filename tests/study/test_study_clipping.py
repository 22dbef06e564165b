"""Steps whose gradient was clipped are counted."""

from pathlib import Path

import pytest
from trainer_runs import make_trainer

from benchmarks.study.clipping import ClippedSteps


@pytest.mark.parametrize(("max_norm", "share"), [(0, 0.0), (1e6, 0.0), (1e-6, 1.0)])
def test_the_share_of_clipped_steps_is_that_of_gradients_above_the_norm(
    max_norm: float, share: float, tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path, max_steps=3, max_grad_norm=max_norm)
    clipped = ClippedSteps(trainer)
    assert clipped.share is None
    trainer.train()
    assert clipped.share == share


def test_a_step_is_counted_by_its_own_norm(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, max_steps=3)
    norms = iter([0.5, 2.0, None])
    trainer.accelerator.clip_grad_norm_ = lambda *_: next(norms)
    clipped = ClippedSteps(trainer)
    assert [trainer.accelerator.clip_grad_norm_([], 1.0) for _ in range(3)] == [0.5, 2.0, None]
    assert clipped.share == pytest.approx(1 / 3)
