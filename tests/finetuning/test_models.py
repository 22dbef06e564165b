"""Models that cannot be scored are refused in one clear sentence."""

from pathlib import Path

import pytest
from transformers import FNetConfig, Mamba2Config, PreTrainedTokenizerFast, T5Config

from hf_dwt.finetuning.models import open_candidate


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


def test_a_model_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    FNetConfig().save_pretrained(tmp_path)
    with pytest.raises((ValueError, OSError), match=r"[Tt]okenizer"):
        open_candidate(str(tmp_path), with_head=False)


def test_an_end_pads_where_there_is_no_padding_token(gpt2: str) -> None:
    tokenizer = open_candidate(gpt2, with_head=True).tokenizer
    assert tokenizer.pad_token == tokenizer.eos_token
    assert tokenizer.padding_side == "right"
