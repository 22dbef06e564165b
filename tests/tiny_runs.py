"""Tiny models, examples and arguments of the tests that train; scripts that tests start use them too."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from hf_dwt import DWTTrainingArguments
from hf_dwt.data import CausalCollator, MaskingCollator, train_tokenizer
from hf_dwt.language_models import Kind
from hf_dwt.losses import IGNORED_LABEL, hard_loss
from hf_dwt.positions import logits_at, positions_of, without_labels

# Sums, and so the teachers below, come out the same in every process; set before any fixture trains.
torch.set_num_threads(1)

WORDS = ["cat", "dog", "hill", "house", "mat", "morning", "rain", "sun", "tree", "wind"]
KINDS: tuple[Kind, Kind] = ("masked", "causal")


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer with one token for each of the words."""
    return train_tokenizer([" ".join(WORDS)] * 20, vocab_size=100)


@cache
def examples(num: int = 24, first_word: int = 0) -> datasets.Dataset:
    """Tokenised sentences of 3 to 15 words without labels: after each word comes the next one of the alphabet."""
    sentences = [
        " ".join(WORDS[(first_word + index + place) % len(WORDS)] for place in range(3 + 5 * index % 13))
        for index in range(num)
    ]
    return datasets.Dataset.from_dict({"input_ids": tokenizer()(sentences)["input_ids"]})


def labelled_examples(kind: Kind, num: int = 24, length: int = 10) -> datasets.Dataset:
    """Padded examples with labels: uneven numbers of them, some rows without any."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(5, len(tokenizer()), (num, length), generator=generator)
    mask = (torch.arange(length) < torch.randint(2, length + 1, (num, 1), generator=generator)).long()
    share = torch.tensor([0.0, 0.2, 0.9, 0.5])[torch.arange(num) % 4].unsqueeze(-1)
    asked = (torch.rand(num, length, generator=generator) < (share if kind == "masked" else 0.8)) & mask.bool()
    labels = ids.where(asked, IGNORED_LABEL)
    if kind == "masked":
        ids = ids.masked_fill(asked, tokenizer().mask_token_id)
    return datasets.Dataset.from_dict(
        {"input_ids": ids.tolist(), "attention_mask": mask.tolist(), "labels": labels.tolist()}
    )


def build(architecture: str, hidden_size: int = 16, num_layers: int = 2, *, seed: int = 1, **config: Any) -> Any:
    """A tiny language model: 'bert', 'distilbert', 'gpt2' or 'llama'; 'masked' and 'causal' are the first of a kind."""
    torch.manual_seed(seed)
    size = {"vocab_size": len(tokenizer()), "pad_token_id": tokenizer().pad_token_id}
    ends = {"bos_token_id": tokenizer().cls_token_id, "eos_token_id": tokenizer().sep_token_id}
    bert_like = {"hidden_size": hidden_size, "num_hidden_layers": num_layers, "num_attention_heads": 2}
    bert_like |= {"intermediate_size": 2 * hidden_size, "max_position_embeddings": 32}
    if architecture in ("bert", "masked"):
        return BertForMaskedLM(BertConfig(**size, **bert_like, **config))
    if architecture == "distilbert":
        own = {"dim": hidden_size, "n_layers": num_layers, "n_heads": 2, "hidden_dim": 2 * hidden_size}
        return DistilBertForMaskedLM(DistilBertConfig(**size, **own, max_position_embeddings=32, **config))
    if architecture in ("gpt2", "causal"):
        own = {"n_embd": hidden_size, "n_layer": num_layers, "n_head": 2, "n_positions": 32}
        return GPT2LMHeadModel(GPT2Config(**size, **ends, **own, **config))
    assert architecture == "llama"
    return LlamaForCausalLM(LlamaConfig(**size, **ends, **bert_like, **config))


def without_dropout(model: PreTrainedModel) -> PreTrainedModel:
    """The model itself, with every dropout set to 0."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def make_student(architecture: str = "masked", **config: Any) -> PreTrainedModel:
    """A student without dropout, always with the same weights."""
    return without_dropout(build(architecture, **config))


def make_teacher(architecture: str = "masked") -> PreTrainedModel:
    """A smaller teacher that has learnt what word follows, always with the same weights."""
    teacher = build(architecture, hidden_size=12, num_layers=1, seed=2)
    teacher.load_state_dict(_trained_weights(architecture))
    return teacher


def kind_of(architecture: str) -> Kind:
    """'masked' or 'causal'."""
    return "masked" if architecture in ("masked", "bert", "distilbert") else "causal"


def collator(kind: str, **settings: Any) -> Callable[..., dict[str, torch.Tensor]]:
    """What the trainer takes by itself for examples without labels, with seed 42 of the arguments."""
    return MaskingCollator(tokenizer(), seed=42, **settings) if kind == "masked" else CausalCollator(tokenizer())


def arguments(folder: str | Path, **settings: Any) -> DWTTrainingArguments:
    """Arguments of a quiet run: plain SGD, no clipping, no schedule, nothing saved; the teacher speaks to the end."""
    quiet = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "save_strategy": "no"}
    plain = {"optim": "sgd", "lr_scheduler_type": "constant", "max_grad_norm": 0.0, "learning_rate": 0.1}
    sizes = {"per_device_train_batch_size": 8, "weighting": "linear"}
    return DWTTrainingArguments(str(folder), **{**quiet, **plain, **sizes, **settings})


def weights_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of the parameters, by name."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Largest difference between any two parameters of the same name."""
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


@cache
def _trained_weights(architecture: str) -> dict[str, torch.Tensor]:
    model = without_dropout(build(architecture, hidden_size=12, num_layers=1, seed=2))
    collate = collator(kind_of(architecture), mask_probability=0.3)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    for step in range(60):
        if isinstance(collate, MaskingCollator):
            collate.set_epoch(1000 + step)
        batch = collate(list(examples()))
        positions = positions_of(kind_of(architecture), batch)
        hard_loss(logits_at(model, without_labels(batch), positions), positions.labels).mean().backward()
        optimiser.step()
        optimiser.zero_grad()
    return model.state_dict()
