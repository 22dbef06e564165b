import copy
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import BloomConfig, BloomForCausalLM

from hf_dwt import Teacher
from hf_dwt.arguments import DistillationArguments
from hf_dwt.compatibility import (
    check_pair,
    judge,
    refuse_options,
    refuse_teacher,
    require_unknown_token,
    warn_of_unused_choices,
)
from hf_dwt.preflight import FirstImpression


@pytest.fixture
def trainer(make_bert):
    """As much of a `Trainer` as is looked at, with nothing to refuse."""

    def build(*, tp=1, cp=1, sp=1, compute_loss_func=None, n_gpu=1, use_liger_kernel=False, **config):
        model = make_bert()
        model.config.update(config)
        return SimpleNamespace(
            args=SimpleNamespace(n_gpu=n_gpu, use_liger_kernel=use_liger_kernel),
            model=model,
            compute_loss_func=compute_loss_func,
            get_tp_size=lambda: tp,
            get_cp_size=lambda: cp,
            get_sp_size=lambda: sp,
        )

    return build


@pytest.mark.parametrize("has_teacher", [True, False])
def test_usual_options_are_not_refused(trainer, has_teacher):
    refuse_options(trainer(), has_teacher)
    refuse_options(trainer(n_gpu=0, output_router_logits=False), has_teacher)


@pytest.mark.parametrize("has_teacher", [True, False])
@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"n_gpu": 2}, "2 GPUs without a launcher .* Start the script with `torchrun --nproc_per_node 2`"),
        ({"use_liger_kernel": True}, "`use_liger_kernel` would replace the head whose logits are compared"),
        ({"tp": 2}, r"tensor parallelism \(here over 2 processes\) is not supported; use DDP"),
        ({"cp": 3}, r"context parallelism \(here over 3 processes\) is not supported; use DDP"),
        ({"sp": 4}, r"sequence parallelism \(here over 4 processes\) is not supported; use DDP"),
        ({"output_router_logits": True}, "router losses are not supported: set `output_router_logits=False`"),
    ],
)
def test_options_that_would_change_the_loss_are_refused_by_name(trainer, has_teacher, options, text):
    with pytest.raises(ValueError, match=text):
        refuse_options(trainer(**options), has_teacher)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.* is deprecated:FutureWarning")
@pytest.mark.parametrize("has_teacher", [True, False])
@pytest.mark.parametrize("has_adapter", [False, True])
def test_a_student_that_is_spread_over_devices_is_refused(trainer, has_teacher, has_adapter):
    spread = trainer()
    core = spread.model
    if has_adapter:
        spread.model = get_peft_model(core, LoraConfig(target_modules=["query"]))
    core.hf_device_map = {"bert": 0, "cls": 1}
    with pytest.raises(ValueError, match=r"`model` is spread over 2 devices by a `device_map`\. Load it without one"):
        refuse_options(spread, has_teacher)
    core.hf_device_map = {"": "cpu"}
    refuse_options(spread, has_teacher)


def test_a_users_own_loss_is_refused_only_beside_a_teacher(trainer):
    own = trainer(compute_loss_func=lambda outputs, labels: 0)
    with pytest.raises(ValueError, match="`compute_loss_func` cannot be used with a teacher: both would be the loss"):
        refuse_options(own, has_teacher=True)
    refuse_options(own, has_teacher=False)


def test_other_models_have_no_teacher(make_bert):
    with pytest.raises(TypeError, match="a masked or causal language model; `model` is Linear"):
        refuse_teacher(torch.nn.Linear(2, 2), make_bert())
    refuse_teacher(torch.nn.Linear(2, 2), None)


def test_teacher_and_student_of_different_kinds_are_refused(make_bert, make_gpt2):
    with pytest.raises(ValueError, match=r"The teacher .* is a masked language model, `model` a causal one"):
        check_pair(Teacher(make_bert()), make_gpt2())
    with pytest.raises(ValueError, match=r"The teacher .* is a causal language model, `model` a masked one"):
        check_pair(Teacher(make_gpt2()), make_bert())


def test_a_student_cannot_teach_itself(make_bert):
    model = make_bert()
    text = "`teacher` and `model` share parameters: a frozen teacher cannot be trained. Pass a copy"
    with pytest.raises(ValueError, match=text):
        check_pair(Teacher(model), model)
    check_pair(Teacher(copy.deepcopy(model)), model)


def test_a_single_shared_parameter_is_noticed(make_bert):
    teacher, student = make_bert(), make_bert()
    student.bert.embeddings.word_embeddings.weight = teacher.bert.embeddings.word_embeddings.weight
    with pytest.raises(ValueError, match="share parameters"):
        check_pair(Teacher(teacher), student)


def test_a_teacher_larger_than_the_student_is_told_with_both_sizes(make_bert, caplog):
    teacher, student = Teacher(make_bert(32)), make_bert(16)
    check_pair(teacher, student)
    sizes = [f"{sum(each.numel() for each in model.parameters()):,}" for model in (teacher.model, student)]
    assert f"has more parameters than the student, {sizes[0]} against {sizes[1]}" in caplog.text
    assert "ordinary distillation, not distillation from a weak teacher" in caplog.text


def test_a_teacher_no_larger_than_the_student_is_not_remarked_on(make_bert, caplog):
    check_pair(Teacher(make_bert(16)), make_bert(16))
    check_pair(Teacher(make_bert(16)), make_bert(32))
    assert not caplog.records


@pytest.mark.parametrize(
    ("teacher_reads", "student_reads", "told"),
    [(16, 64, "the student 64: a longer example"), (64, 64, ""), (64, 16, "")],
)
def test_a_teacher_that_reads_less_at_once_than_the_student_is_told(
    make_bert, caplog, teacher_reads, student_reads, told
):
    teacher, student = (make_bert(max_position_embeddings=reads) for reads in (teacher_reads, student_reads))
    check_pair(Teacher(teacher), student)
    assert ("reads at most 16 tokens" in caplog.text) == bool(told)
    assert told in caplog.text


def test_a_teacher_that_reads_less_than_a_student_without_a_limit_is_told(make_gpt2, tokenizer, caplog):
    size = {"hidden_size": 48, "n_layer": 2, "n_head": 2}
    student = BloomForCausalLM(BloomConfig(vocab_size=len(tokenizer), **size))
    check_pair(Teacher(make_gpt2()), student)
    assert "reads at most 64 tokens (`max_position_embeddings`), the student any number" in caplog.text


def test_mapping_to_an_unknown_token_needs_one(make_bert, tokenizer):
    require_unknown_token(Teacher(make_bert(), tokenizer))
    without = copy.deepcopy(tokenizer)
    without.unk_token = None
    for processing_class in (None, without):
        with pytest.raises(ValueError, match="`map_added_tokens_to_unknown` needs a teacher with an unknown token"):
            require_unknown_token(Teacher(make_bert(), processing_class))


@pytest.mark.parametrize("teacher_loss", [3.0, 3.5, float("nan"), float("inf")])
def test_a_teacher_no_better_than_guessing_is_refused(make_bert, teacher_loss):
    impression = FirstImpression(teacher_loss, unigram_loss=3.0, num_positions=1234)
    text = rf"no better than guessing .* {teacher_loss:.3f} against 3.000 nats at 1,234 pos.*`allow_bad_teacher=True`"
    with pytest.raises(ValueError, match=text):
        judge(Teacher(make_bert()), impression, allow_bad_teacher=False)


def test_a_teacher_that_knows_no_label_is_refused_for_that_and_not_for_its_loss(make_bert, caplog):
    impression = FirstImpression(float("nan"), float("nan"), num_positions=0)
    text = r"The teacher .* knows none of the tokens that the first batches ask for: .*`allow_bad_teacher=True`"
    with pytest.raises(ValueError, match=text) as refused:
        judge(Teacher(make_bert()), impression, allow_bad_teacher=False)
    assert "nan" not in str(refused.value)
    judge(Teacher(make_bert()), impression, allow_bad_teacher=True)
    assert "knows none of the tokens" in caplog.text


def test_a_bad_teacher_is_only_told_if_it_is_allowed(make_bert, caplog):
    judge(Teacher(make_bert()), FirstImpression(3.5, 3.0, 1234), allow_bad_teacher=True)
    assert "no better than guessing by token frequency" in caplog.text
    assert "trains anyway" not in caplog.text


def test_a_teacher_better_than_guessing_passes_without_a_word(make_bert, caplog):
    judge(Teacher(make_bert()), FirstImpression(2.999, 3.0, 1234), allow_bad_teacher=False)
    assert not caplog.records


def test_choices_without_effect_are_named(caplog):
    warn_of_unused_choices(DistillationArguments(weighting="constant", temperature=2.0))
    assert "There is no `teacher`: weighting, temperature have no effect" in caplog.text


def test_defaults_are_not_warned_about(caplog):
    warn_of_unused_choices(DistillationArguments())
    assert not caplog.records
