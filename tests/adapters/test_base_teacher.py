"""`teacher="base"`: the student's own base, heard with the adapter off, as if it were a copy."""

from pathlib import Path

import pytest
import torch
from adapted_runs import adapted_base, copy_of_base, fixed_of, lora, make_base, make_trainer, trained_of
from tiny_runs import KINDS, collator, examples, largest_difference
from trainer_runs import training_logs

from hf_dwt import heads
from hf_dwt.adapters import adapter_off, num_base_parameters
from hf_dwt.losses import IGNORED_LABEL

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.* is deprecated:FutureWarning")

EQUAL = 1e-6


@pytest.mark.parametrize("parts", ["whole", "in parts"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_base_teaches_as_a_copy_of_it_does_under_dropout(
    kind: str, parts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if parts == "in parts":
        monkeypatch.setattr(heads, "_MOST_LOGITS_ON_CPU", 3 * make_base(kind).config.vocab_size)
    runs = []
    for teacher in ("base", copy_of_base(kind), None):
        trainer = make_trainer(tmp_path, kind, teacher=teacher, logging_steps=1)
        assert any(isinstance(each, torch.nn.Dropout) and each.p > 0 for each in trainer.model.modules())
        before = fixed_of(trainer.model)
        trainer.train()
        assert largest_difference(before, fixed_of(trainer.model)) == 0
        runs.append((trained_of(trainer.model), training_logs(trainer)))
    (ours, our_logs), (copied, copied_logs), (alone, _) = runs
    assert largest_difference(ours, copied) < EQUAL
    assert largest_difference(ours, alone) > 1e-3
    for one, other in zip(our_logs, copied_logs, strict=True):
        for name in ("loss", "hard_loss", "soft_loss", "teacher_hard_loss"):
            assert one[name] == pytest.approx(other[name], abs=1e-5)
        assert one["soft_loss"] > 1e-3
