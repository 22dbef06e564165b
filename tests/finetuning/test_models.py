"""Models that cannot be scored are refused in one clear sentence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hub_server import Hub
from transformers import (
    AutoModel,
    FNetConfig,
    Mamba2Config,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    T5Config,
)

from hf_dwt.finetuning.models import load_classifier, load_encoder, open_candidate


def test_a_model_without_a_classification_class_is_sent_to_the_probe(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    Mamba2Config().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"no sequence classification class for 'mamba2' models\. .*--method probe"):
        open_candidate(str(tmp_path), with_head=True)
    assert open_candidate(str(tmp_path), with_head=False).name == str(tmp_path)


def test_an_encoder_decoder_is_refused(tmp_path: Path) -> None:
    T5Config().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is an encoder-decoder"):
        open_candidate(str(tmp_path), with_head=False)


def test_code_of_a_model_is_neither_run_nor_asked_about(bert: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda _: pytest.fail("asked on the terminal"))
    config, ran = Path(bert, "config.json"), Path(bert, "ran")
    Path(bert, "own.py").write_text(f"from pathlib import Path\nPath({str(ran)!r}).touch()\n")
    own = {"auto_map": {"AutoConfig": "own.OwnConfig"}}
    config.write_text(json.dumps(json.loads(config.read_text()) | own | {"model_type": "own"}))
    with pytest.raises(ValueError, match=r"does not have, 'own', and brings code for it\. .* nothing of it was"):
        open_candidate(bert, with_head=True)
    # What transformers has by itself needs none of it.
    config.write_text(json.dumps(json.loads(config.read_text()) | own | {"model_type": "bert"}))
    candidate = open_candidate(bert, with_head=True)
    assert candidate.max_length(512) <= 512
    load_classifier(candidate, None, seed=0)
    load_encoder(candidate)
    assert not ran.exists()


def test_a_model_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    FNetConfig().save_pretrained(tmp_path)
    with pytest.raises((ValueError, OSError), match=r"[Tt]okenizer"):
        open_candidate(str(tmp_path), with_head=False)


def test_an_end_pads_where_there_is_no_padding_token(gpt2: str) -> None:
    tokenizer = open_candidate(gpt2, with_head=True).tokenizer
    assert tokenizer.pad_token == tokenizer.eos_token
    assert tokenizer.padding_side == "right"


def test_a_folder_at_home_may_be_named_by_a_tilde(gpt2: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(Path(gpt2).parent))
    candidate = open_candidate("~/gpt2", with_head=True)
    assert (candidate.name, candidate.source) == ("~/gpt2", gpt2)


def test_rows_are_cut_where_a_roberta_can_read_no_further(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    small = {"vocab_size": len(tokenizer), "hidden_size": 12, "num_hidden_layers": 1, "pad_token_id": 1}
    RobertaConfig(max_position_embeddings=10, architectures=["RobertaForMaskedLM"], **small).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    candidate = open_candidate(str(tmp_path), with_head=True)
    assert [candidate.max_length(wanted) for wanted in (5, 99)] == [5, 8]


def test_a_model_of_the_hub_is_read_at_one_commit_whatever_becomes_of_its_branch(
    bert: str, make_bert: Callable[..., PreTrainedModel], hub: Hub, tmp_path: Path
) -> None:
    commit = hub.add("me/student", Path(bert))
    candidate = open_candidate("me/student", with_head=True)
    assert (candidate.revision, candidate.fingerprint) == (commit, commit)
    torch.manual_seed(9)
    make_bert().save_pretrained(tmp_path / "other")
    shutil.copy(Path(bert, "tokenizer.json"), tmp_path / "other")
    shutil.copy(Path(bert, "tokenizer_config.json"), tmp_path / "other")
    moved = hub.add("me/student", tmp_path / "other")
    assert moved != commit
    before = AutoModel.from_pretrained(bert).get_input_embeddings().weight
    assert torch.equal(load_encoder(candidate).get_input_embeddings().weight, before)
    assert torch.equal(load_classifier(candidate, ("no", "yes"), 0).get_input_embeddings().weight, before)
    again = open_candidate(f"me/student@{commit}", with_head=True)
    assert (again.name, again.revision) == (f"me/student@{commit}", commit)
    assert open_candidate("me/student", with_head=True).revision == moved


def test_a_revision_that_is_not_there_is_told(bert: str, hub: Hub) -> None:
    hub.add("me/student", Path(bert))
    with pytest.raises(OSError, match=r"The model 'me/student' \(revision 'v9'\) .* no such revision"):
        open_candidate("me/student@v9", with_head=True)
