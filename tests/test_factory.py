"""What grows exactly: the bars, every family that is known to, the methods, and the ways in which copies part."""

from typing import get_overloads

import pytest
import torch
import transformers
from tiny_teachers import FAMILIES, VOCABULARY, batch, largest_difference, make_tiny, outputs
from torch.nn import functional
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel

from hf_dwt import RemappingReport, from_weak_teacher, plan_growth
from hf_dwt.remapping.sizes import field_of, per_layer

# ALBERT shares its layers; of DeBERTa the package finds no identity block yet.
NO_DEPTH = {"albert", "deberta"}


def grow(teacher, **request):
    return from_weak_teacher(teacher, output_report=True, **request)


def twice(teacher, axis):
    name = field_of(teacher.config, axis)
    return {name: 2 * getattr(teacher.config, name)}


@pytest.mark.parametrize(
    "request_",
    [
        {"hidden_size": 64},
        {"hidden_size": 96},
        {"hidden_size": 64, "num_attention_heads": 4},
        {"hidden_size": 64, "num_attention_heads": 8},
        {"intermediate_size": 100},
        {"num_hidden_layers": 4},
        {"num_hidden_layers": 3},
        {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 200, "num_hidden_layers": 4},
    ],
    ids=lambda request_: "-".join(f"{name}={size}" for name, size in request_.items()),
)
def test_bert_grows_within_a_hundred_thousandth(request_):
    teacher = make_tiny("bert")
    student, report = grow(teacher, **request_)
    assert {name: getattr(student.config, name) for name in request_} == request_
    assert largest_difference(teacher, student) <= 1e-5
    assert report.exact


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "phi3", "gemma", "gpt2"])
def test_a_causal_model_grows_in_all_directions_at_once_and_writes_the_same_text(family):
    if family == "gpt2":
        old, new = {"n_embd": 128}, {"n_embd": 192, "n_head": 6, "n_inner": 800, "n_layer": 4}
    else:
        old = {"hidden_size": 128, "intermediate_size": 320} | (
            {"head_dim": 32} if "head_dim" in FAMILIES[family][1] else {}
        )
        new = {"hidden_size": 192, "num_attention_heads": 6, "num_key_value_heads": 3, "intermediate_size": 512}
        new["num_hidden_layers"] = 4
    teacher = make_tiny(family, **old)
    student, report = grow(teacher, **new)
    assert largest_difference(teacher, student) <= 2e-5
    assert report.exact
    assert report.cached_difference.exact
    prompt = batch()["input_ids"][:1, :6]
    text = [
        model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=12, do_sample=False)
        for model in (teacher, student)
    ]
    assert torch.equal(*text)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in {"ctrl", "electra-discriminator"}])
def test_every_known_family_grows_to_twice_its_width(family):
    teacher = make_tiny(family)
    student, report = grow(teacher, **twice(teacher, "hidden"))
    assert largest_difference(teacher, student) <= 2e-5
    assert report.exact


@pytest.mark.parametrize(
    "family", [family for family in FAMILIES if family not in {*NO_DEPTH, "electra-discriminator"}]
)
def test_every_family_with_an_identity_block_grows_to_twice_its_depth(family):
    teacher = make_tiny(family)
    student, report = grow(teacher, **twice(teacher, "layers"))
    assert largest_difference(teacher, student) <= 2e-5
    assert report.exact


def test_logits_of_the_teachers_here_have_a_standard_deviation_of_about_one():
    for family in ("bert", "llama", "gemma", "gpt2"):
        assert float(outputs(make_tiny(family)).std()) == pytest.approx(1, abs=0.1)


def test_depth_is_exact_whatever_the_norms_weigh_and_with_dropout_too():
    """A published encoder has a unit that its last norm scales by 5e-33."""
    teacher = make_tiny("bert")
    with torch.no_grad():
        for layer in teacher.bert.encoder.layer:
            layer.output.LayerNorm.weight[3] = 0.0
            layer.output.LayerNorm.weight[4] = -1e-30
    student, report = grow(teacher, num_hidden_layers=5, verify="full")
    assert report.exact
    assert largest_difference(teacher, student) <= 1e-5


def test_the_depth_of_albert_is_refused_by_name():
    with pytest.raises(ValueError, match=r"`num_hidden_layers` cannot grow: the layers of `AlbertForMaskedLM` share"):
        from_weak_teacher(make_tiny("albert"), num_hidden_layers=4)


def test_a_copy_comes_from_the_nearest_layer_that_has_all_it_needs():
    teacher = make_tiny("modernbert", num_hidden_layers=3)
    assert "attn_norm.weight" not in dict(teacher.model.layers[0].named_parameters())
    student, report = grow(teacher, num_hidden_layers=7)
    layers = [(layer.source, layer.identity) for layer in report.plan.layers]
    assert layers == [(0, False), (1, True), (1, True), (1, False), (1, True), (2, False), (2, True)]
    types = teacher.config.layer_types
    assert student.config.layer_types == [types[source] for source, _ in layers]
    assert report.exact


def test_depth_and_feed_forward_units_of_ctrl_grow_and_its_width_is_refused_for_its_sinusoids():
    teacher = make_tiny("ctrl")
    student, report = grow(teacher, n_layer=4, dff=100)
    assert largest_difference(teacher, student) <= 1e-5
    assert report.exact
    with pytest.raises(ValueError, match=r"`n_embd` and `n_head` .* `transformer.pos_encoding` is computed from these"):
        from_weak_teacher(teacher, n_embd=64)


# Symmetry


def _trained(student):
    student.train()
    for module in student.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    optimiser = torch.optim.SGD(student.parameters(), lr=0.5)
    inputs = batch()
    for _ in range(5):
        logits = student(**inputs).logits
        functional.cross_entropy(logits.flatten(0, 1), inputs["input_ids"].flatten()).backward()
        optimiser.step()
        optimiser.zero_grad()
    return student


def _distance_of_copies(student):
    """Between the two copies of the feed-forward units of the first layer, by the rows that write them."""
    weight = student.bert.encoder.layer[0].intermediate.dense.weight.detach()
    # By output unit, then by copy of the input unit: what the copies of one unit compute is the sum over its columns.
    first, second = weight[:80], weight[80:]
    return float((first - second).abs().max())


def _like(student):
    """Copies of the embeddings of one unit."""
    table = student.bert.embeddings.word_embeddings.weight.detach()
    return float((table[:, :32] - table[:, 32:]).abs().max())


def test_copies_drift_apart_with_noise_and_stay_bit_identical_without():
    teacher = make_tiny("bert", attention_probs_dropout_prob=0.0, hidden_dropout_prob=0.0)
    noisy, plain = (from_weak_teacher(teacher, hidden_size=64, noise=noise) for noise in (0.1, 0.0))
    assert _like(noisy) == _like(plain) == 0, "embeddings of copies start alike"
    assert _distance_of_copies(plain) == 0
    assert _distance_of_copies(noisy) > 0
    _trained(noisy), _trained(plain)
    assert _like(plain) == 0
    assert _distance_of_copies(plain) == 0
    assert _like(noisy) > 1e-4
    assert outputs(plain.eval()).isfinite().all()


# Methods


@pytest.mark.parametrize("method", ["repeat_last", "stack", "interleave", "spread"])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_student_that_only_gets_deeper_has_the_layers_of_its_teacher(family, method):
    teacher = make_tiny(family)
    student, report = grow(teacher, num_hidden_layers=5, method=method)
    stacks = [(each.bert.encoder.layer if family == "bert" else each.model.layers) for each in (teacher, student)]
    assert len(stacks[1]) == len(report.plan.layers) == 5
    for source, layer in zip(report.plan.layers, stacks[1], strict=True):
        theirs = stacks[0][source.source].state_dict()
        for name, value in layer.state_dict().items():
            assert torch.equal(value, theirs[name])
    assert not report.exact, "nothing promises this to be equal, and it is told"


def test_random_takes_nothing_but_the_configuration():
    teacher = make_tiny("bert")
    one, two, other = (
        from_weak_teacher(teacher, hidden_size=64, method="random", seed=seed).state_dict() for seed in (3, 3, 4)
    )
    name = "bert.embeddings.word_embeddings.weight"
    assert all(torch.equal(one[each], two[each]) for each in one)
    assert not torch.equal(one[name], other[name])
    assert not torch.isin(one[name], teacher.state_dict()[name]).any()


@pytest.mark.parametrize(
    ("family", "given"),
    [
        ("qwen2", {}),
        ("gemma3", {}),
        ("modernbert", {}),
        ("smollm3", {}),
        ("gpt_neo", {}),
        ("gemma3", {"layer_types": ["full_attention"] * 5}),
    ],
)
def test_random_gives_each_layer_of_a_deeper_student_what_lists_say_of_a_layer_at_the_same_depth(family, given):
    teacher = make_tiny(family)
    student = from_weak_teacher(teacher, **{field_of(teacher.config, "layers"): 5}, **given, method="random")
    lists = [name for name in teacher.config.to_dict() if per_layer(teacher.config, name)]
    assert lists
    for name in lists:
        first, last = getattr(teacher.config, name)
        assert getattr(student.config, name) == given.get(name, [first] * 3 + [last] * 2)
    assert outputs(student).isfinite().all()


def test_random_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    from_weak_teacher(make_tiny("bert"), hidden_size=64, method="random")
    torch.manual_seed(0)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("method", ["fpi", "aki"])
def test_bert2bert_copies_any_width(method):
    student, report = grow(make_tiny("bert"), hidden_size=48, method=method)
    assert student.config.hidden_size == 48
    assert not report.exact


def test_new_rows_of_aki_come_from_the_layer_above():
    teacher = make_tiny("bert")
    student = from_weak_teacher(teacher, hidden_size=64, method="aki", noise=0.0)
    layers, grown = teacher.bert.encoder.layer, student.bert.encoder.layer
    for name in ("intermediate.dense", "attention.self.query"):
        first, second, new = (each.get_submodule(name).weight for each in (layers[0], layers[1], grown[0]))
        half = len(first)
        torch.testing.assert_close(new[:half], first.repeat(1, 2) / 2)
        torch.testing.assert_close(new[half:], second.repeat(1, 2) / 2)
        last = grown[1].get_submodule(name).weight
        torch.testing.assert_close(last, second.repeat(2, 2) / 2)  # There is none above the last.
    bias = grown[0].intermediate.dense.bias
    torch.testing.assert_close(bias, torch.cat([each.intermediate.dense.bias for each in layers]))


def test_aki_takes_the_copies_of_queries_keys_and_values_that_lie_in_one_matrix_from_the_layer_above():
    teacher = make_tiny("gpt2")
    student = from_weak_teacher(teacher, n_embd=64, method="aki", noise=0.0)
    own, above = (layer.attn.c_attn for layer in teacher.transformer.h)
    # Columns write: of each third the teacher's own come first, then their copies.
    weights = [both for part in zip(*(each.weight.chunk(3, 1) for each in (own, above)), strict=True) for both in part]
    biases = [both for part in zip(*(each.bias.chunk(3) for each in (own, above)), strict=True) for both in part]
    grown = student.transformer.h[0].attn.c_attn
    torch.testing.assert_close(grown.weight, torch.cat(weights, 1).repeat(2, 1) / 2)
    torch.testing.assert_close(grown.bias, torch.cat(biases))


def test_aki_takes_the_copies_of_heads_from_the_layer_above_where_groups_get_more_members():
    teacher = make_tiny("llama")
    request = {"num_attention_heads": 8, "num_key_value_heads": 2, "intermediate_size": 80}
    student = from_weak_teacher(teacher, hidden_size=64, method="aki", noise=0.0, **request)
    own, above = (layer.self_attn.q_proj.weight.split(8) for layer in teacher.model.layers)
    # Heads 0 and 1 ask the first key-value head, 2 and 3 the second: copies stay with the one that they ask.
    heads = [own[0], own[1], above[0], above[1], own[2], own[3], above[2], above[3]]
    grown = student.model.layers[0].self_attn
    torch.testing.assert_close(grown.q_proj.weight, torch.cat(heads).repeat(1, 2) / 2)
    kept = teacher.model.layers[0].self_attn
    for name in ("k_proj", "v_proj"):
        assert torch.equal(grown.get_submodule(name).weight, kept.get_submodule(name).weight.repeat(1, 2) / 2)


def test_aki_gives_bert_bit_for_bit_the_rows_of_fpi_and_behind_them_those_of_the_layer_above():
    teacher, shifted = make_tiny("bert", num_hidden_layers=3), make_tiny("bert", num_hidden_layers=3)
    layers = teacher.bert.encoder.layer
    for number, layer in enumerate(shifted.bert.encoder.layer):
        layer.load_state_dict(layers[min(number + 1, 2)].state_dict())
    for request in ({"hidden_size": 64}, {"hidden_size": 48}, {"hidden_size": 64, "intermediate_size": 211}):
        aki, own, above = (
            from_weak_teacher(source, **request, method=method).state_dict()
            for source, method in ((teacher, "aki"), (teacher, "fpi"), (shifted, "fpi"))
        )
        for name, weight in own.items():
            if "encoder.layer" in name and "LayerNorm" not in name:
                num_old = len(teacher.state_dict()[name])
                weight = torch.cat([weight[:num_old], above[name][num_old:]])
            assert torch.equal(aki[name], weight), name


def test_fpi_of_a_whole_factor_is_tiling():
    teacher = make_tiny("llama")
    _, report = grow(teacher, hidden_size=64, width_method="fpi")
    assert report.exact


# Requests that are seldom made


@pytest.mark.parametrize(
    ("family", "request_"),
    [
        ("gpt2", {"n_head": 5}),
        ("llama", {"num_attention_heads": 6, "num_key_value_heads": 3}),
        ("llama", {"hidden_size": 80}),
        ("gemma3", {"hidden_size": 80, "num_hidden_layers": 3}),
        ("bert", {"num_hidden_layers": 3}),
        ("modernbert", {"num_hidden_layers": 3, "vocab_size": 64}),
        *[(family, {"vocab_size": 64}) for family in ("bert", "llama-tied", "gpt2", "xlm-roberta")],
        ("bert", {"max_position_embeddings": 64}),
        ("llama", {}),
    ],
)
def test_one_more_of_anything_and_two_and_a_half_times_the_width_are_exact(family, request_):
    teacher = make_tiny(family)
    student, report = grow(teacher, **request_)
    assert {name: getattr(student.config, name) for name in request_} == request_
    assert largest_difference(teacher, student) <= 2e-5
    assert report.exact


@pytest.mark.parametrize("dtype", ["int8", torch.int64, "precise"])
def test_a_type_that_weights_cannot_have_is_refused_before_any_work(dtype, monkeypatch):
    monkeypatch.setattr("hf_dwt.factory.settle", None)
    with pytest.raises(ValueError, match="no floating-point type of torch"):
        from_weak_teacher(make_tiny("llama"), hidden_size=64, dtype=dtype)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"noise": float("nan")}, "`noise` must be at least 0 and finite, got nan"),
        ({"noise": float("inf")}, "`noise` must be at least 0 and finite, got inf"),
        ({"noise": -0.1}, r"`noise` must be at least 0 and finite, got -0\.1"),
        ({"seed": "a"}, "`seed` must be an integer, got 'a'"),
        ({"verify": "Full"}, "`verify` must be True, False or 'full', got 'Full'"),
    ],
)
@pytest.mark.parametrize("method", ["exact", "random"])
def test_a_setting_out_of_its_range_is_refused_before_any_work(method, request_, message, monkeypatch):
    monkeypatch.setattr("hf_dwt.factory._carried_out", None)
    monkeypatch.setattr("hf_dwt.factory.settle", None)
    with pytest.raises((ValueError, TypeError), match=message):
        from_weak_teacher(make_tiny("llama"), hidden_size=64, method=method, **request_)


@pytest.mark.parametrize(
    "beside",
    [{"method": "random"}, {"noise": 0.9, "seed": 7}, {"width_method": "pad"}, {"depth_method": "stack"}],
    ids=lambda beside: "-".join(beside),
)
def test_what_a_plan_has_settled_is_not_asked_for_beside_it(beside):
    teacher = make_tiny("bert")
    plan = plan_growth(teacher, hidden_size=64, method="aki", noise=0.2, seed=3)
    with pytest.raises(ValueError, match=f"A plan is replayed as it is: leave out {', '.join(beside)}"):
        from_weak_teacher(teacher, plan, **beside)
    assert from_weak_teacher(teacher, plan).config.hidden_size == 64


# Where teachers come from


def test_a_model_that_transformers_does_not_know_as_one_is_refused_by_its_class():
    with pytest.raises(TypeError, match="must be a `Teacher`, a transformers model, a folder or a Hub id, got Linear"):
        from_weak_teacher(torch.nn.Linear(2, 2), hidden_size=64)


def test_a_folder_at_home_may_be_named_by_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    make_tiny("bert").save_pretrained(tmp_path / "small")
    assert from_weak_teacher("~/small", num_hidden_layers=3).config.num_hidden_layers == 3


def test_a_folder_that_names_no_class_of_transformers_is_refused(tmp_path):
    config = make_tiny("llama").config
    config.architectures = ["MyForCausalLM"]
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="names no class of transformers as its architecture, but 'MyForCausalLM'"):
        from_weak_teacher(tmp_path, hidden_size=64)


def test_a_quantised_teacher_is_refused_in_memory_and_by_its_folder_before_its_weights_are_read(tmp_path):
    teacher = make_tiny("llama")
    teacher.config.quantization_config = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    teacher.config.architectures = ["LlamaForCausalLM"]
    teacher.config.save_pretrained(tmp_path)
    for source in (teacher, tmp_path):
        with pytest.raises(ValueError, match=r"is quantised: its weights cannot be grown\. Take it unquantised"):
            from_weak_teacher(source, hidden_size=64)


@pytest.mark.parametrize("verify", [True, False])
def test_a_folder_whose_weights_are_cut_short_is_refused_by_the_name_of_the_file(verify, tmp_path):
    make_tiny("llama").save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(OSError, match=r"has a file that is cut short or broken, model\.safetensors"):
        from_weak_teacher(tmp_path, hidden_size=64, verify=verify)


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("family", ["llama-tied", "bert"])
def test_a_folder_of_many_files_grows_as_the_model_in_memory_does(family, verify, tmp_path):
    teacher = make_tiny(family)
    teacher.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 3
    request = {"hidden_size": 64, "num_hidden_layers": 3, "verify": verify}
    from_folder, in_memory = (from_weak_teacher(source, **request) for source in (tmp_path, teacher))
    theirs = in_memory.state_dict()
    assert all(torch.equal(weight, theirs[name]) for name, weight in from_folder.state_dict().items())
    assert largest_difference(teacher, from_folder) <= 2e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_student_has_the_precision_of_its_teacher_in_memory_and_from_a_folder(dtype, tmp_path):
    teacher = make_tiny("llama").to(dtype)
    teacher.save_pretrained(tmp_path)
    for source in (teacher, tmp_path):
        student, report = from_weak_teacher(source, hidden_size=64, output_report=True)
        assert (student.dtype, student.config.dtype) == (dtype, dtype)
        assert report.exact
    assert from_weak_teacher(teacher, hidden_size=64, dtype="float32").dtype == torch.float32


# What saved students are like


class OnGpu(torch.Tensor):
    """Stands in for what is on a GPU: it meets no other tensor, but can be copied to the CPU and from there."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func == torch.Tensor.device.__get__:
            return torch.device("cuda", 0)
        with torch._C.DisableTorchFunctionSubclass():
            if func is torch.Tensor.cpu:
                return args[0].as_subclass(torch.Tensor)
        given = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
        if func is torch.Tensor.copy_ or all(isinstance(each, OnGpu) for each in given):
            return super().__torch_function__(func, types, args, kwargs)
        raise RuntimeError("Expected all tensors to be on the same device.")


def on_gpu(model):
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            module._parameters[name] = torch.nn.Parameter(parameter.data.as_subclass(OnGpu), requires_grad=False)
    model.tie_weights()
    return model


@pytest.mark.parametrize(
    "request_",
    [
        {"hidden_size": 64, "num_hidden_layers": 3},
        {"hidden_size": 48, "method": "near"},
        {"hidden_size": 64, "num_hidden_layers": 3, "verify": False},
        {"hidden_size": 64, "verify": "full"},
    ],
    ids=lambda request_: "-".join(f"{name}={value}" for name, value in request_.items()),
)
def test_a_teacher_on_a_gpu_makes_the_same_student_and_stays_there(request_):
    teacher = on_gpu(make_tiny("bert"))
    with pytest.raises(RuntimeError, match="on the same device"):
        teacher(**batch())
    expected, of_cpu = grow(make_tiny("bert"), **request_)
    student, report = grow(teacher, **request_)
    ours, theirs = student.state_dict(), expected.state_dict()
    assert all(torch.equal(ours[name], weight) for name, weight in theirs.items())
    assert (report.exact, report.difference) == (of_cpu.exact, of_cpu.difference)
    assert {type(each) for each in student.state_dict().values()} == {torch.Tensor}
    assert {each.device.type for each in teacher.parameters()} == {"cuda"}


@pytest.mark.parametrize("family", ["bert", "llama-tied", "gemma3", "opt", "xlm-roberta", "gpt2", "deberta-v2"])
def test_a_saved_student_loads_as_any_model_and_says_the_same(family, tmp_path):
    teacher = make_tiny(family)
    deeper = twice(teacher, "layers")
    student = from_weak_teacher(teacher, **twice(teacher, "hidden"), **deeper)
    student.save_pretrained(tmp_path)
    auto = transformers.AutoModelForCausalLM if student.can_generate() else transformers.AutoModelForMaskedLM
    loaded, loading = auto.from_pretrained(tmp_path, output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    assert torch.equal(outputs(student), outputs(loaded.eval()))
    tied = [
        each.get_output_embeddings().weight is each.get_input_embeddings().weight for each in (teacher, student, loaded)
    ]
    assert len(set(tied)) == 1


def test_type_checkers_know_what_comes_back():
    returned = [each.__annotations__["return"] for each in get_overloads(from_weak_teacher)]
    assert returned == [PreTrainedModel, tuple[PreTrainedModel, RemappingReport]]


def test_a_configuration_tells_what_was_grown():
    teacher = make_tiny("gemma3")
    student = from_weak_teacher(
        teacher, hidden_size=48, num_attention_heads=6, num_key_value_heads=3, num_hidden_layers=4
    )
    config = student.config
    assert config.layer_types == ["sliding_attention", "sliding_attention", "full_attention", "full_attention"]
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (6, 3, 8)
    assert config.rms_norm_eps == pytest.approx(teacher.config.rms_norm_eps * 32 / 48)
    assert student.model.layers[0].self_attn.q_proj.out_features == 48
    assert teacher.config.num_hidden_layers == 2


def test_copies_leave_the_norms_alone():
    student = from_weak_teacher(make_tiny("llama"), hidden_size=64)
    assert student.config.rms_norm_eps == 1e-6


def test_sizes_of_a_plan_need_no_weights():
    teacher = make_tiny("llama").to("meta")
    plan = plan_growth(teacher, hidden_size=64)
    assert plan.inferred == {"num_attention_heads": 8, "num_key_value_heads": 4, "intermediate_size": 160}
    assert plan.configs()[1].vocab_size == VOCABULARY
