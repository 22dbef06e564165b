"""A teacher is known again by its weights, and another one is refused when a run is resumed."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import arguments, build, make_teacher, tokenizer
from torch import nn
from trainer_runs import make_trainer
from transformers import TrainerControl, TrainerState

from hf_dwt.identity import KeepsTeacher, TeacherIdentity, fingerprint_of

SAVES = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}


def fingerprint(model: nn.Module) -> str:
    return fingerprint_of((name, nullcontext(each.data)) for name, each in model.named_parameters())


# Fingerprints


def test_the_same_weights_have_the_same_fingerprint() -> None:
    assert fingerprint(make_teacher()) == fingerprint(make_teacher())
    assert len(fingerprint(make_teacher())) == 64


@pytest.mark.parametrize("index", [0, 1, 77, -1])
def test_a_single_value_that_differs_in_its_last_bit_is_another_teacher(index: int) -> None:
    weight = torch.randn(3001)
    other = weight.clone()
    other[index] = torch.nextafter(other[index], torch.tensor(100.0))
    before, after = (fingerprint_of([("weight", nullcontext(each))]) for each in (weight, other))
    assert before != after


def test_values_names_shapes_and_precisions_all_count() -> None:
    weight = torch.arange(12.0)
    seen = {
        fingerprint_of([(name, nullcontext(values))])
        for name, values in [
            ("weight", weight),
            ("bias", weight),
            ("weight", weight.flip(0)),
            ("weight", weight.view(3, 4)),
            ("weight", weight.bfloat16()),
            ("weight", weight.half()),
            ("weight", weight.double()),
        ]
    }
    assert len(seen) == 7


def test_where_values_lie_in_memory_does_not_count() -> None:
    values = torch.randn(4, 6)
    turned = values.t().contiguous().t()
    one, other = (fingerprint_of([("weight", nullcontext(each))]) for each in (values, turned))
    assert one == other


# Identities


def test_weights_tell_teachers_apart_whatever_their_names() -> None:
    known = TeacherIdentity("me/small", "abc", "1")
    assert not known.differs_from(TeacherIdentity("./copy", None, "1"))
    assert known.differs_from(TeacherIdentity("me/small", "abc", "2"))


def test_names_and_commits_tell_where_the_weights_are_not_known() -> None:
    known = TeacherIdentity("me/small", "abc")
    assert not known.differs_from(TeacherIdentity("me/small", "abc", "2"))
    assert known.differs_from(TeacherIdentity("me/small", "def", "2"))
    assert known.differs_from(TeacherIdentity("me/other", "abc"))


def test_caches_tell_themselves_apart_and_from_a_teacher_without_a_name() -> None:
    known = TeacherIdentity(cache="1")
    assert not known.differs_from(TeacherIdentity("./copy", cache="1"))
    assert known.differs_from(TeacherIdentity(cache="2"))
    live = TeacherIdentity(fingerprint="1")
    assert known.differs_from(live)
    assert live.differs_from(known)
    assert not TeacherIdentity("me/small", cache="1").differs_from(TeacherIdentity("me/small", fingerprint="1"))


# Resuming


def test_a_checkpoint_records_the_teacher(tmp_path: Path) -> None:
    teacher = make_teacher()
    teacher.save_pretrained(tmp_path / "teacher")
    tokenizer().save_pretrained(tmp_path / "teacher")
    make_trainer(tmp_path, teacher=str(tmp_path / "teacher"), **SAVES).train()
    state = json.loads((tmp_path / "checkpoint-2" / "trainer_state.json").read_text())
    recorded = state["stateful_callbacks"]["KeepsTeacher"]["attributes"]
    told = {"name": str(tmp_path / "teacher"), "commit": None, "fingerprint": fingerprint(teacher), "cache": None}
    assert recorded == told


@pytest.mark.parametrize("restores", [False, True])
def test_another_teacher_is_refused_on_resuming(restores: bool, tmp_path: Path) -> None:
    make_trainer(tmp_path, **SAVES).train()
    other = build("masked", hidden_size=12, num_layers=1, seed=2)
    settings = SAVES | {"allow_bad_teacher": True, "restore_callback_states_from_checkpoint": restores}
    message = (
        r"The checkpoint's run learnt from another teacher \(a model passed in memory, weights \w{12}\) than this one "
        r"\(a model passed in memory, weights \w{12}\)\. Pass the teacher that it had"
    )
    checkpoint = str(tmp_path / "checkpoint-2")
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, teacher=other, **settings).train(checkpoint)
    make_trainer(tmp_path, **settings).train(checkpoint)
    # A new run may have any teacher.
    make_trainer(tmp_path, teacher=other, **settings).train()


def test_a_teacher_of_another_precision_is_another_one(tmp_path: Path) -> None:
    make_trainer(tmp_path, **SAVES).train()
    hint = r"Pass the teacher that it had \(in the same precision: has `teacher_dtype` changed\?\); to go on"
    with pytest.raises(ValueError, match=hint):
        make_trainer(tmp_path, teacher_dtype="bfloat16", **SAVES).train(str(tmp_path / "checkpoint-2"))


def test_a_checkpoint_that_knows_of_no_teacher_may_be_resumed_with_one_which_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_trainer(tmp_path, teacher=None, **SAVES).train()
    resumed = make_trainer(tmp_path, **SAVES)
    resumed.train(str(tmp_path / "checkpoint-2"))
    told = f"The checkpoint's run had no teacher, from step 2 on there is one ({resumed._teaching.identity})."
    assert told in caplog.text
    caplog.clear()
    make_trainer(tmp_path, **SAVES).train(str(tmp_path / "checkpoint-4"))
    make_trainer(tmp_path, **SAVES).train()
    assert "had no teacher" not in caplog.text


@pytest.mark.parametrize("settings", [{}, {"weighting": "step", "weighting_kwargs": {"at": 0.2}}], ids=["held", "gone"])
def test_a_run_that_was_taught_is_not_resumed_without_its_teacher(settings: dict[str, Any], tmp_path: Path) -> None:
    steps = {"final_soft_loss_weight": 0.0, **SAVES, **settings}
    make_trainer(tmp_path, **steps).train()
    checkpoint = str(tmp_path / "checkpoint-2")
    alone = make_trainer(tmp_path, teacher=None, **steps)
    with pytest.raises(
        ValueError, match=rf"learnt from a teacher in {1 if settings else 2} of its 2 steps, this one has"
    ):
        alone.train(checkpoint)
    assert alone.state.global_step == 2
    # With it the run goes on, whether or not it has been let go.
    make_trainer(tmp_path, **steps).train(checkpoint)
    # A new run may do without.
    make_trainer(tmp_path, teacher=None, **SAVES).train()


def test_a_run_whose_teacher_was_never_heard_may_be_resumed_without_it(tmp_path: Path) -> None:
    silent = {"weighting": "constant", "soft_loss_weight": 0.0, **SAVES}
    make_trainer(tmp_path, **silent).train()
    make_trainer(tmp_path, teacher=None, **SAVES).train(str(tmp_path / "checkpoint-2"))


def begin(now: TeacherIdentity, before: TeacherIdentity) -> None:
    state = TrainerState(global_step=1)
    KeepsTeacher(before).keep_in(state)
    KeepsTeacher(now).on_train_begin(arguments("unused"), state, TrainerControl())


def test_a_branch_that_has_moved_is_another_teacher_if_the_weights_are_others_and_the_old_commit_is_told() -> None:
    before = TeacherIdentity("me/small", "a" * 40, "1")
    begin(TeacherIdentity("me/small", "b" * 40, "1"), before)
    way_back = rf"Pass the teacher that it had \(its branch has moved: `load_teacher\(..., revision='{'a' * 40}'\)`\);"
    with pytest.raises(ValueError, match=way_back):
        begin(TeacherIdentity("me/small", "b" * 40, "2"), before)
    with pytest.raises(ValueError, match=r"Pass the teacher that it had; to go on"):
        begin(TeacherIdentity("me/other", "b" * 40, "2"), before)
