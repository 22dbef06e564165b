"""A checkpoint's tensors one at a time, however it is cut and named."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_teachers import largest_difference, make_tiny
from transformers import AutoModelForMaskedLM

from hf_dwt import from_weak_teacher
from hf_dwt.weights import open_safetensors


@pytest.mark.parametrize("shard_size", ["5GB", "20KB"])
@pytest.mark.parametrize("family", ["bert", "xlm-roberta", "gpt2", "llama-tied"])
def test_a_student_grows_from_a_folder_as_it_does_from_memory(family: str, shard_size: str, tmp_path: Path) -> None:
    teacher = make_tiny(family)
    teacher.save_pretrained(tmp_path, max_shard_size=shard_size)
    assert len(list(tmp_path.glob("*.safetensors"))) > (shard_size == "20KB")
    longer = {"num_hidden_layers": 3}
    unread = from_weak_teacher(tmp_path, verify=False, **longer).state_dict()
    from_memory = from_weak_teacher(teacher, **longer).state_dict()
    assert all(torch.equal(unread[name], from_memory[name]) for name in from_memory)


def test_without_a_proof_the_model_is_never_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = make_tiny("xlm-roberta")
    teacher.save_pretrained(tmp_path, max_shard_size="20KB")

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr(type(teacher), "from_pretrained", fail)
    student = from_weak_teacher(tmp_path, verify=False, num_hidden_layers=3)
    assert largest_difference(teacher, student) <= 1e-5
    with pytest.raises(AssertionError, match="loaded"):
        from_weak_teacher(tmp_path, num_hidden_layers=3)


def test_names_are_found_with_and_without_the_prefix_and_under_a_tied_name(tmp_path: Path) -> None:
    save_file(
        {"bert.a": torch.zeros(1), "b": torch.ones(1), "head": torch.full((1,), 2.0)}, tmp_path / "model.safetensors"
    )
    read = open_safetensors(tmp_path, ["a", "bert.b", "table"], "bert", {"head": "table"})
    assert read is not None
    assert [float(read(name)) for name in ("a", "bert.b", "table")] == [0, 1, 2]
    assert open_safetensors(tmp_path, ["a", "missing"], "bert", {}) is None


def test_pickles_are_not_read(tmp_path: Path) -> None:
    teacher = make_tiny("bert")
    teacher.config.architectures = ["BertForMaskedLM"]
    teacher.config.save_pretrained(tmp_path)
    torch.save(teacher.state_dict(), tmp_path / "pytorch_model.bin")
    AutoModelForMaskedLM.from_pretrained(tmp_path)  # transformers would
    for verify in (True, False):
        with pytest.raises(OSError, match="safetensors"):
            from_weak_teacher(tmp_path, verify=verify, num_hidden_layers=3)
