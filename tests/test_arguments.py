import dataclasses
import json
import math

import pytest
from transformers import HfArgumentParser, TrainingArguments

from hf_dwt import DWTTrainingArguments, Signals, Weights
from hf_dwt.arguments import DistillationArguments


def arguments(**changes: object) -> DWTTrainingArguments:
    return DWTTrainingArguments("student", **{"use_cpu": True, "report_to": "none"} | changes)


def test_the_output_folder_is_the_first_argument_as_in_transformers():
    assert arguments().output_dir == "student"
    assert DWTTrainingArguments(use_cpu=True).output_dir == TrainingArguments(use_cpu=True).output_dir


def test_fields_of_transformers_keep_their_order_and_defaults():
    stock = dataclasses.fields(TrainingArguments)
    ours = dataclasses.fields(DWTTrainingArguments)[: len(stock)]
    assert [(each.name, each.default) for each in ours] == [(each.name, each.default) for each in stock]


def test_the_default_policy_lets_the_teacher_speak_first_and_be_silent_from_half_time_on():
    args = arguments()
    assert (args.weighting, args.temperature, args.hard_loss_weight) == ("inheritance", 1.0, 1.0)
    assert args.policy()(Signals(0, 0.0)) == Weights(hard=0.0, soft=1.0)
    assert args.policy()(Signals(5, 0.5)) == Weights(hard=1.0, soft=0.0, for_good=True)
    assert args.weighting_steps is args.weighting_kwargs is args.teacher_dtype is None
    assert not args.allow_bad_teacher
    assert not args.map_added_tokens_to_unknown


def test_every_choice_says_what_it_means():
    assert all(each.metadata["help"] for each in dataclasses.fields(DistillationArguments))


def test_choices_reach_the_policy():
    args = arguments(
        weighting="step",
        soft_loss_weight=3.0,
        final_soft_loss_weight=0.5,
        hard_loss_weight=0.25,
        weighting_kwargs={"at": 0.3},
    )
    assert args.policy()(Signals(0, 0.29)) == Weights(hard=0.25, soft=3.0)
    assert args.policy()(Signals(0, 0.3)) == Weights(hard=0.25, soft=0.5)


@pytest.mark.parametrize(
    ("temperature", "scale", "expected"), [(1.0, True, 1), (2.0, True, 4), (2.0, False, 1), (0.5, True, 0.25)]
)
def test_soft_loss_is_scaled_by_the_square_of_the_temperature_unless_that_is_switched_off(temperature, scale, expected):
    args = arguments(temperature=temperature, scale_soft_loss_by_temperature=scale)
    assert args.soft_loss_scale == expected


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"temperature": 0}, "`temperature` must be a finite number above 0, got 0"),
        ({"temperature": -1.0}, "`temperature` must be a finite number above 0, got -1.0"),
        ({"temperature": math.nan}, "`temperature` must be a finite number above 0, got nan"),
        ({"temperature": math.inf}, "`temperature` must be a finite number above 0, got inf"),
        ({"temperature": "2"}, "`temperature` must be a finite number above 0, got '2'"),
        ({"weighting_steps": 0}, "`weighting_steps` must be a whole number, at least 1, got 0"),
        ({"weighting_steps": -5}, "`weighting_steps` must be a whole number, at least 1, got -5"),
        ({"weighting_steps": 1.5}, "`weighting_steps` must be a whole number, at least 1, got 1.5"),
        ({"soft_loss_weight": -1}, "`soft_loss_weight` must be finite and at least 0, got -1"),
        (
            {"weighting": "linear", "final_soft_loss_weight": -1},
            "`final_soft_loss_weight` must be finite and at least 0, got -1",
        ),
        ({"weighting": "constant", "hard_loss_weight": -1}, "`hard_loss_weight` must be finite and at least 0, got -1"),
        (
            {"weighting": "constant", "hard_loss_weight": math.nan},
            "`hard_loss_weight` must be finite and at least 0, got nan",
        ),
        ({"hard_loss_weight": None}, "`hard_loss_weight` must be a number, got None"),
        ({"soft_loss_weight": "4"}, "`soft_loss_weight` must be a number, got '4'"),
        ({"weighting": "cosin"}, "`weighting` is 'cosin'. Did you mean 'cosine'"),
        ({"weighting": None}, "`weighting` is None"),
        ({"weighting": "constant", "final_soft_loss_weight": 1}, "'constant'` does not use `final_soft_loss_weight`"),
        ({"weighting": "inheritance", "hard_loss_weight": 2}, "'inheritance'` does not use `hard_loss_weight`"),
        ({"soft_loss_weight": 4}, "must lie between 0 and 1, got 4. Larger ones are for 'constant', 'linear' or"),
        ({"weighting_kwargs": {"att": 0.3}, "weighting": "step"}, "does not use `att`. Did you mean 'at'"),
        ({"weighting_kwargs": {"at": 3}, "weighting": "step"}, "`at` must lie between 0 and 1, got 3"),
        ({"weighting_kwargs": {"soft_loss_weight": 3}}, r"holds \['soft_loss_weight'\], which are arguments of their"),
        ({"weighting_kwargs": '{"at": '}, "`weighting_kwargs` must be a JSON object, got '{\"at\": '"),
        ({"weighting_kwargs": "[1]"}, r"`weighting_kwargs` must be names with values, .* got '\[1\]'"),
        ({"weighting_kwargs": 3}, "`weighting_kwargs` must be names with values, .* got 3"),
        ({"teacher_dtype": "int8"}, "`teacher_dtype` must be 'float32', 'bfloat16' or 'float16', got 'int8'"),
    ],
)
def test_a_value_out_of_its_range_is_refused_by_name(changes, text):
    with pytest.raises(ValueError, match=text):
        arguments(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": 2},
        {"weighting_steps": 1},
        {"soft_loss_weight": 0},
        {"weighting": "constant", "hard_loss_weight": 0},
        {"weighting": "inheritance", "hard_loss_weight": 1.0},
        {"weighting_kwargs": {}},
        {"teacher_dtype": "float16"},
    ],
)
def test_values_at_the_edge_of_their_range_are_taken(changes):
    args = arguments(**changes)
    assert {name: getattr(args, name) for name in changes} == changes


def test_settings_of_a_policy_may_come_as_json():
    args = arguments(weighting="wsd", weighting_kwargs='{"warmup": 0.05, "decay": 0.5}')
    assert args.weighting_kwargs == {"warmup": 0.05, "decay": 0.5}
    assert args.policy()(Signals(0, 0.05)).soft == 4.0


def test_arguments_survive_a_round_trip_through_json():
    args = arguments(weighting="step", weighting_kwargs={"at": 0.3}, temperature=2.0, teacher_dtype="bfloat16")
    content = json.loads(args.to_json_string())
    assert content == json.loads(json.dumps(args.to_dict()))
    ours = [each.name for each in dataclasses.fields(DistillationArguments)]
    again = arguments(**{name: content[name] for name in ours})
    assert [getattr(again, name) for name in ours] == [getattr(args, name) for name in ours]
    assert again.policy() == args.policy()


def test_arguments_are_parsed_from_a_command_line():
    line = (
        "--output_dir out --use_cpu --weighting step --soft_loss_weight 3 --final_soft_loss_weight 0.5 "
        '--hard_loss_weight 0.25 --weighting_kwargs {"at":0.3} --weighting_steps 100 --temperature 2 '
        "--scale_soft_loss_by_temperature false --teacher_dtype bfloat16 --teacher_placement offload "
        "--allow_bad_teacher --map_added_tokens_to_unknown"
    )
    (args,) = HfArgumentParser(DWTTrainingArguments).parse_args_into_dataclasses(line.split())
    expected = {
        "weighting": "step",
        "soft_loss_weight": 3.0,
        "final_soft_loss_weight": 0.5,
        "hard_loss_weight": 0.25,
        "weighting_kwargs": {"at": 0.3},
        "weighting_steps": 100,
        "temperature": 2.0,
        "scale_soft_loss_by_temperature": False,
        "teacher_dtype": "bfloat16",
        "teacher_placement": "offload",
        "allow_bad_teacher": True,
        "map_added_tokens_to_unknown": True,
    }
    assert {each.name: getattr(args, each.name) for each in dataclasses.fields(DistillationArguments)} == expected


def test_a_wrong_choice_on_a_command_line_is_refused(capsys):
    with pytest.raises(SystemExit):
        HfArgumentParser(DWTTrainingArguments).parse_args_into_dataclasses(["--teacher_dtype", "int8"])
    assert "invalid choice: 'int8'" in capsys.readouterr().err


def test_the_choices_can_be_read_without_training_arguments():
    assert DistillationArguments(weighting="constant").policy()(Signals(0, 0.0)) == Weights(hard=1.0, soft=1.0)
