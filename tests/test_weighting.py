import dataclasses
import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest

from hf_dwt import weighting
from hf_dwt.signals import Signals, Weights
from hf_dwt.weighting import make_policy, policy_names, progress_at, register_policy, uses_progress

BUILT_IN = ["constant", "linear", "cosine", "exponential", "step", "wsd", "inheritance", "handover"]


def soft_weights(name: str, *at: float, **settings: float) -> list[float]:
    policy = make_policy(name, **settings)
    return [policy(Signals(step=0, progress=progress)).soft for progress in at]


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("constant", {"soft_loss_weight": 3.0}, [3, 3, 3, 3, 3]),
        ("linear", {}, [4, 3.7, 3.25, 2.5, 1]),
        ("linear", {"soft_loss_weight": 0.0, "final_soft_loss_weight": 2.0}, [0, 0.2, 0.5, 1, 2]),
        ("cosine", {}, [4, 4 - 1.5 * (1 - math.cos(0.1 * math.pi)), 4 - 1.5 * (1 - math.sqrt(0.5)), 2.5, 1]),
        ("exponential", {}, [4, 4**0.9, 4**0.75, 2, 1]),
        ("step", {"at": 0.25, "final_soft_loss_weight": 0.5}, [4, 4, 0.5, 0.5, 0.5]),
        ("wsd", {"warmup": 0.2, "decay": 0.5}, [0, 2, 4, 4, 1]),
        ("inheritance", {}, [1, 0.8, 0.5, 0, 0]),
        ("inheritance", {"soft_loss_weight": 0.8, "end": 1.0}, [0.8, 0.72, 0.6, 0.4, 0]),
    ],
)
def test_soft_weight_follows_the_formula(name, settings, expected):
    assert soft_weights(name, 0, 0.1, 0.25, 0.5, 1, **settings) == pytest.approx(expected)


def test_linear_is_from_four_to_one_by_default():
    assert make_policy("linear")(Signals(0, 0.0)) == Weights(hard=1.0, soft=4.0)
    assert make_policy("linear")(Signals(9, 1.0)) == Weights(hard=1.0, soft=1.0)


def test_constant_is_one_by_default():
    assert make_policy("constant")(Signals(0, 0.3)) == Weights(hard=1.0, soft=1.0)


def test_exponential_changes_by_the_same_factor_in_every_step():
    weights = soft_weights("exponential", *(step / 10 for step in range(11)))
    factors = [later / earlier for earlier, later in pairwise(weights)]
    assert factors == pytest.approx([0.25**0.1] * 10)


def test_wsd_rises_from_zero_stays_and_falls_in_straight_lines():
    at = (0, 0.05, 0.1, 0.5, 0.8, 0.9, 1)
    assert soft_weights("wsd", *at) == pytest.approx([0, 2, 4, 4, 4, 2.5, 1])
    assert soft_weights("wsd", *at, warmup=0, decay=0) == [4] * 7
    assert soft_weights("wsd", *at, warmup=0, decay=1) == pytest.approx([4, 3.85, 3.7, 2.5, 1.6, 1.3, 1])


@pytest.mark.parametrize("progress", [0, 0.1, 0.25, 0.49, 0.5, 1])
@pytest.mark.parametrize("settings", [{}, {"soft_loss_weight": 0.3}, {"end": 1.0}, {"end": 0.0}])
def test_inheritance_is_convex(progress, settings):
    weights = make_policy("inheritance", **settings)(Signals(0, progress))
    assert weights.hard + weights.soft == pytest.approx(1)


@pytest.mark.parametrize("name", ["constant", "linear", "cosine", "exponential", "step", "wsd"])
def test_hard_weight_stays_where_it_was_set(name):
    for progress in (0, 0.3, 1):
        assert make_policy(name, hard_loss_weight=0.25)(Signals(0, progress)).hard == 0.25


@pytest.mark.parametrize(
    ("name", "settings", "first"),
    [
        ("constant", {"soft_loss_weight": 0}, 0),
        ("linear", {"final_soft_loss_weight": 0}, 1),
        ("cosine", {"final_soft_loss_weight": 0}, 1),
        ("step", {"final_soft_loss_weight": 0, "at": 0.3}, 0.3),
        ("wsd", {"final_soft_loss_weight": 0}, 1),
        ("inheritance", {"end": 0.6}, 0.6),
        ("linear", {"soft_loss_weight": 0, "final_soft_loss_weight": 0}, 0),
        ("cosine", {"soft_loss_weight": 0, "final_soft_loss_weight": 0}, 0),
    ],
)
def test_a_policy_says_when_the_teacher_is_never_needed_again(name, settings, first):
    policy = make_policy(name, **settings)
    for progress in (0, 0.1, 0.3, 0.5, 0.6, 0.99, 1):
        weights = policy(Signals(0, progress))
        assert weights.for_good == (progress >= first)
        assert not weights.for_good or weights.soft == 0


@pytest.mark.parametrize("name", ["constant", "linear", "cosine", "exponential", "step", "wsd"])
def test_a_teacher_that_speaks_to_the_end_is_never_let_go(name):
    assert not any(make_policy(name)(Signals(0, progress / 20)).for_good for progress in range(21))


def test_a_warm_up_from_zero_keeps_the_teacher():
    weights = make_policy("wsd")(Signals(0, 0.0))
    assert weights == Weights(hard=1.0, soft=0.0, for_good=False)


def test_exponential_refuses_zero():
    for name in ("soft_loss_weight", "final_soft_loss_weight"):
        with pytest.raises(ValueError, match="'exponential'` needs soft-loss weights above 0; use 'linear'"):
            make_policy("exponential", **{name: 0})


@pytest.mark.parametrize("name", ["constant", "linear", "cosine", "exponential", "step", "wsd", "inheritance"])
@pytest.mark.parametrize(
    ("value", "text"),
    [
        (-1.0, "`soft_loss_weight` must be finite and at least 0, got -1.0"),
        (math.nan, "`soft_loss_weight` must be finite and at least 0, got nan"),
        (math.inf, "`soft_loss_weight` must be finite and at least 0, got inf"),
        (True, "`soft_loss_weight` must be a number, got True"),
        ("4", "`soft_loss_weight` must be a number, got '4'"),
    ],
)
def test_every_policy_refuses_impossible_weights(name, value, text):
    with pytest.raises(ValueError, match=text):
        make_policy(name, soft_loss_weight=value)


@pytest.mark.parametrize("setting", ["final_soft_loss_weight", "hard_loss_weight"])
def test_the_weight_that_is_impossible_is_named(setting):
    with pytest.raises(ValueError, match=f"`{setting}` must be finite and at least 0, got -2"):
        make_policy("linear", **{setting: -2})


@pytest.mark.parametrize(
    ("name", "settings", "text"),
    [
        ("step", {"at": 1.5}, "`at` must lie between 0 and 1, got 1.5"),
        ("inheritance", {"end": 2}, "`end` must lie between 0 and 1, got 2"),
        ("inheritance", {"soft_loss_weight": 1.5}, "`soft_loss_weight` must lie between 0 and 1, got 1.5"),
        ("wsd", {"warmup": -0.1}, "`warmup` must be finite and at least 0"),
        ("wsd", {"warmup": 0.6, "decay": 0.5}, r"`warmup` \+ `decay` must be at most 1, got 0.6 \+ 0.5"),
    ],
)
def test_shares_beyond_the_run_are_refused(name, settings, text):
    with pytest.raises(ValueError, match=text):
        make_policy(name, **settings)


def test_learning_from_nothing_is_refused():
    with pytest.raises(ValueError, match="both 0: nothing would be learnt"):
        make_policy("constant", hard_loss_weight=0, soft_loss_weight=0)
    with pytest.raises(ValueError, match="both 0: nothing would be learnt"):
        make_policy("linear", hard_loss_weight=0, final_soft_loss_weight=0)
    assert make_policy("constant", hard_loss_weight=0)(Signals(0, 0.0)) == Weights(hard=0, soft=1.0)


def test_an_unknown_policy_is_refused_and_the_nearest_name_suggested():
    with pytest.raises(ValueError, match=r"`weighting` is 'liner'\. Did you mean 'linear'\? Known: .*constant.*wsd"):
        make_policy("liner")
    with pytest.raises(ValueError, match=r"`weighting` is 'xyz'\. Known: "):
        make_policy("xyz")
    with pytest.raises(ValueError, match=r"`weighting` is None\. "):
        make_policy(None)


def test_settings_that_a_policy_does_not_use_are_refused():
    with pytest.raises(ValueError, match="`weighting='constant'` does not use `final_soft_loss_weight`"):
        make_policy("constant", final_soft_loss_weight=1.0)
    with pytest.raises(ValueError, match=r"`weighting='wsd'` does not use `warm_up`\. Did you mean 'warmup'\?"):
        make_policy("wsd", warm_up=0.1)
    with pytest.raises(ValueError, match="`weighting='inheritance'` does not use `hard_loss_weight`"):
        make_policy("inheritance", hard_loss_weight=0.5)
    with pytest.raises(ValueError, match="`weighting='step'` does not use `name`"):
        make_policy("step", name="x")


def test_a_setting_that_is_none_takes_the_policys_own_default():
    assert make_policy("wsd", soft_loss_weight=None, decay=None) == make_policy("wsd")


def test_a_policy_of_ones_own_is_built_by_name(monkeypatch):
    monkeypatch.setattr(weighting, "_policies", dict(weighting._policies))

    @register_policy("every_other")
    @dataclass(frozen=True)
    class EveryOther:
        soft_loss_weight: float = 1.0
        period: int = 2

        def __call__(self, signals: Signals) -> Weights:
            return Weights(1.0, self.soft_loss_weight * (signals.step % self.period == 0))

    assert "every_other" in policy_names()
    policy = make_policy("every_other", soft_loss_weight=3.0, final_soft_loss_weight=None, period=3)
    assert [policy(Signals(step, step / 6)).soft for step in range(6)] == [3, 0, 0, 3, 0, 0]
    with pytest.raises(ValueError, match="'every_other'` does not use `at`"):
        make_policy("every_other", at=0.1)


def test_only_dataclasses_are_registered(monkeypatch):
    monkeypatch.setattr(weighting, "_policies", dict(weighting._policies))
    with pytest.raises(TypeError, match="A policy is a dataclass whose fields are its settings"):
        register_policy("plain")(lambda signals: Weights(1.0, 1.0))
    assert "plain" not in policy_names()


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_names_are_not_given_away(name, monkeypatch):
    monkeypatch.setattr(weighting, "_policies", dict(weighting._policies))

    @dataclass(frozen=True)
    class Own:
        def __call__(self, signals: Signals) -> Weights:
            return Weights(1.0, 1.0)

    before = type(make_policy(name))
    with pytest.raises(
        ValueError, match=rf"'{name}' is a built-in policy, {before.__name__}: register .* another name"
    ):
        register_policy(name)(Own)
    assert type(make_policy(name)) is before


def test_a_name_of_ones_own_may_be_registered_again(monkeypatch):
    monkeypatch.setattr(weighting, "_policies", dict(weighting._policies))
    for weight in (1.0, 2.0):
        own = dataclasses.make_dataclass("Own", [("soft_loss_weight", float, weight)], frozen=True)
        register_policy("own")(own)
        assert make_policy("own").soft_loss_weight == weight


@pytest.mark.parametrize("name", BUILT_IN)
def test_policies_are_frozen(name):
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_policy(name).soft_loss_weight = 2.0


def test_weights_refuse_what_cannot_weigh():
    with pytest.raises(ValueError, match="`soft` must be finite and at least 0, got -1"):
        Weights(hard=1, soft=-1)
    with pytest.raises(ValueError, match="`hard` must be finite and at least 0, got nan"):
        Weights(hard=math.nan, soft=0)
    with pytest.raises(ValueError, match="`for_good` means a soft weight of 0 from here on, got soft=1"):
        Weights(hard=1, soft=1, for_good=True)


def test_only_the_constant_policy_is_known_to_weigh_the_same_whatever_the_length():
    assert [name for name in BUILT_IN if not uses_progress(make_policy(name))] == ["constant"]


def test_progress_runs_from_zero_to_one_and_stays_there():
    assert [progress_at(step, 4) for step in (0, 1, 2, 4, 5, 400)] == [0, 0.25, 0.5, 1, 1, 1]
    assert progress_at(0, 0) == 0


# Handover


def handover(gap: float | None, reference: float | None = 1.02, **more: Any) -> Weights:
    signals = Signals(step=500, progress=0.5, gap=gap, reference_gap=reference, **more)
    return make_policy("handover", soft_loss_weight=2.0)(signals)


@pytest.mark.parametrize(("gap", "soft"), [(2.0, 2.0), (1.02, 2.0), (0.52, 1.0), (0.12, 0.2), (0.02, 0.0), (-1.0, 0.0)])
def test_the_weight_is_the_share_of_the_gap_that_is_left_above_the_margin(gap: float, soft: float) -> None:
    weights = handover(gap)
    assert weights.soft == pytest.approx(soft)
    assert weights.for_good == (soft == 0)


def test_a_gap_that_grows_again_does_not_bring_the_weight_back() -> None:
    assert handover(0.9, previous_soft_loss_weight=0.5).soft == 0.5
    assert handover(0.12, previous_soft_loss_weight=0.5).soft == pytest.approx(0.2)
    assert handover(0.9, previous_soft_loss_weight=0.0) == Weights(hard=1.0, soft=0.0, for_good=True)


def test_the_weight_stays_before_the_first_probe_and_during_the_warm_up() -> None:
    assert handover(None, None).soft == 2.0
    assert handover(0.02, warming_up=True).soft == 2.0
    assert handover(math.nan, previous_soft_loss_weight=1.5).soft == 1.5


@pytest.mark.parametrize("reference", [0.02, 0.0, -0.5])
def test_a_teacher_that_is_not_ahead_when_it_would_speak_first_never_speaks(reference: float) -> None:
    assert handover(reference, reference, warming_up=True).for_good
    assert not handover(0.021, 0.021).for_good


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gap_every": 0}, "`gap_every` must be a whole number, at least 1, got 0"),
        ({"gap_every": True}, "`gap_every` must be a whole number"),
        ({"margin": -0.1}, "`margin` must be finite and at least 0"),
        ({"hard_loss_weight": 0.0}, "the student goes on alone"),
    ],
)
def test_settings_of_a_handover_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_policy("handover", **settings)
