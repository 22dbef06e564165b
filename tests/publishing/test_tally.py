import torch
from tiny_runs import arguments
from transformers import TrainerState
from transformers.trainer_callback import TrainerControl

from hf_dwt.publishing.tally import Tally

LABELS = torch.tensor([[-100, 3, -100], [4, -100, -100]])


def begin(tally: Tally, saved: Tally | None = None) -> None:
    state = TrainerState(global_step=int(saved is not None))
    if saved is not None:
        state.stateful_callbacks["Tally"] = saved.state()
    tally.on_train_begin(arguments("unused"), state, TrainerControl())


def test_tokens_are_counted_with_padding_and_over_interruptions() -> None:
    first, second = Tally(), Tally()
    begin(first)
    first.add(LABELS, LABELS)
    first.add(LABELS, None)
    assert (first.tokens, first.shape) == (12, (2, 3, 2))
    begin(second, first)
    second.add(LABELS, LABELS)
    assert second.tokens == 18
    assert second.seconds > first.state()["attributes"]["seconds"] - 1


def test_a_new_run_starts_at_nothing() -> None:
    tally = Tally()
    tally.add(LABELS, None)
    begin(tally)
    assert tally.tokens == 0
