"""Settings and tiny models that all tests share."""

import os

from hub_place import HF_HOME, HUB, IS_REAL, TOKEN

# Read when huggingface_hub is imported, hence before everything else; so is what `hub_place` sets.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Else DeepSpeed prints, where it is first used, that it has found no GPU.
os.environ["DS_ACCELERATOR"] = "cpu"

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import datasets
import huggingface_hub
import pytest
import torch
from hub_guard import Wall
from hub_server import Hub
from temporary_repositories import Repositories
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from hf_dwt.data import train_tokenizer

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # A shell starts so what runs in the background; the processes that tests start and interrupt would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

SENTENCES = [
    "the cat sat on the mat",
    "a dog ran over the hill and found the cat asleep",
    "rain fell on the mat, on the hill and on the old house",
    "nobody in the old house heard the rain",
    "the dog and the cat shared the mat until morning",
]


@pytest.fixture(autouse=True)
def _reproducible_and_quiet() -> None:
    """Every test starts from the same seed; progress bars and information stay out of the output."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    logging.disable_progress_bar()
    logging.warning_once.cache_clear()


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The empty cache of packages, and a pip that knows of no index."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    return tmp_path / "cache" / "hf_dwt" / "wheels"


@pytest.fixture(scope="session")
def started_hub() -> Iterator[Hub]:
    """The Hub of this process, which answers from now on."""
    HUB.start()
    yield HUB
    HUB.stop()


@pytest.fixture(scope="session")
def wall() -> Iterator[Wall]:
    """What stands where a proxy would."""
    wall = Wall()
    yield wall
    wall.close()


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch, wall: Wall) -> Iterator[None]:
    """The client online and without memories; to any other place than its Hub nothing gets, see `hub_guard`."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    if IS_REAL:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield
    else:
        with wall.around(monkeypatch):
            yield
    # No test finds what another one has downloaded.
    shutil.rmtree(HF_HOME / "hub", ignore_errors=True)


@pytest.fixture
def hub(started_hub: Hub, online: None) -> Iterator[Hub]:
    """The test Hub, empty, with its request log and its faults; a real one has neither."""
    if IS_REAL:
        pytest.skip("a request log and faults are the test Hub's alone: run without HF_DWT_TEST_TOKEN")
    started_hub.reset()
    yield started_hub
    started_hub.reset()


@pytest.fixture
def place(request: pytest.FixtureRequest, online: None) -> Iterator[Repositories]:
    """Temporary repositories on the test Hub or, by opt-in, on a real one."""
    if not IS_REAL:
        request.getfixturevalue("hub")
    repositories = Repositories()
    yield repositories
    repositories.remove()


@pytest.fixture(params=["xet", "lfs"])
def each_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way in which large files travel."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", request.param == "lfs")
    return str(request.param)


@pytest.fixture
def each_transfer(each_way: str, hub: Hub) -> Hub:
    """The test Hub, for each way in which large files travel."""
    return hub


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer of the sentences above."""
    return train_tokenizer(SENTENCES * 3, vocab_size=100)


@pytest.fixture
def make_bert(tokenizer: PreTrainedTokenizerFast) -> Callable[..., PreTrainedModel]:
    """Build a tiny masked LM: `make_bert(hidden_size, num_hidden_layers, **config)`."""

    def make(hidden_size: int = 16, num_hidden_layers: int = 2, **config: object) -> PreTrainedModel:
        settings = {"vocab_size": len(tokenizer), "num_attention_heads": 4, "max_position_embeddings": 64}
        settings |= {"intermediate_size": 2 * hidden_size, **config}
        return BertForMaskedLM(BertConfig(hidden_size=hidden_size, num_hidden_layers=num_hidden_layers, **settings))

    return make


@pytest.fixture
def make_gpt2(tokenizer: PreTrainedTokenizerFast) -> Callable[..., PreTrainedModel]:
    """Build a tiny causal LM: `make_gpt2(hidden_size, num_hidden_layers, **config)`."""

    def make(hidden_size: int = 16, num_hidden_layers: int = 2, **config: object) -> PreTrainedModel:
        special = {"bos_token_id": tokenizer.cls_token_id, "eos_token_id": tokenizer.sep_token_id}
        settings = {"vocab_size": len(tokenizer), "n_head": 4, "n_positions": 64, **special, **config}
        return GPT2LMHeadModel(GPT2Config(n_embd=hidden_size, n_layer=num_hidden_layers, **settings))

    return make


@pytest.fixture(scope="session")
def examples(tokenizer: PreTrainedTokenizerFast) -> datasets.Dataset:
    """Forty tokenised examples of 8 to 24 tokens, without labels."""
    generator = torch.Generator().manual_seed(1)
    texts = []
    for _ in range(40):
        first, second = torch.randint(len(SENTENCES), (2,), generator=generator).tolist()
        texts.append(f"{SENTENCES[first]} {SENTENCES[second]}")
    ids = tokenizer(texts, truncation=True, max_length=24)["input_ids"]
    return datasets.Dataset.from_dict({"input_ids": ids})
