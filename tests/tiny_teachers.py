"""Tiny teachers of the tests that grow: families that are known to grow exactly, with weights that hide nothing."""

from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

VOCABULARY = 61

_SIZES = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 80, "num_hidden_layers": 2}
_SIZES |= {"num_attention_heads": 4, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_BERT = {**_SIZES, "max_position_embeddings": 48}
_GROUPED = {**_BERT, "num_key_value_heads": 2}
_GEMMA = {**_GROUPED, "head_dim": 8}
_GPT2 = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 48}
_GPT2 |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_DISTIL = {"vocab_size": VOCABULARY, "dim": 32, "hidden_dim": 80, "n_layers": 2, "n_heads": 4}
_DEBERTA = {**_BERT, "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "max_relative_positions": 24}
_NEO = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_layers": 2,
    "num_heads": 4,
    "attention_types": [[["global", "local"], 1]],
}
_NEO |= {"max_position_embeddings": 48, "window_size": 4, "bos_token_id": 1, "eos_token_id": 2}
_OPT = {**_SIZES, "ffn_dim": 80, "word_embed_proj_dim": 32, "max_position_embeddings": 48}
_OPT.pop("intermediate_size")
_ROBERTA = {**_BERT, "max_position_embeddings": 52}
_MODERN = {**_BERT, "cls_token_id": 1, "sep_token_id": 2, "local_attention": 8}

# Family -> class, fields of its configuration.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertForMaskedLM", _BERT),
    "roberta": ("RobertaForMaskedLM", _ROBERTA),
    "xlm-roberta": ("XLMRobertaForMaskedLM", _ROBERTA),
    "camembert": ("CamembertForMaskedLM", _ROBERTA),
    "distilbert": ("DistilBertForMaskedLM", {**_DISTIL, "max_position_embeddings": 48}),
    "electra": ("ElectraForMaskedLM", {**_BERT, "embedding_size": 16}),
    "electra-same-embedding": ("ElectraForMaskedLM", {**_BERT, "embedding_size": 32}),
    "electra-discriminator": ("ElectraForPreTraining", {**_BERT, "embedding_size": 16}),
    "albert": ("AlbertForMaskedLM", {**_BERT, "embedding_size": 16}),
    "deberta": ("DebertaForMaskedLM", _DEBERTA),
    "deberta-v2": (
        "DebertaV2ForMaskedLM",
        {**_DEBERTA, "position_buckets": 8, "norm_rel_ebd": "layer_norm", "share_att_key": True},
    ),
    "mpnet": ("MPNetForMaskedLM", _ROBERTA),
    "modernbert": ("ModernBertForMaskedLM", _MODERN),
    "gpt2": ("GPT2LMHeadModel", _GPT2),
    "ctrl": ("CTRLLMHeadModel", {**_GPT2, "dff": 80}),
    "opt": ("OPTForCausalLM", _OPT),
    "gpt_neox": ("GPTNeoXForCausalLM", _BERT),
    "gpt_neo": ("GPTNeoForCausalLM", _NEO),
    "llama": ("LlamaForCausalLM", _GROUPED),
    "llama-tied": ("LlamaForCausalLM", {**_GROUPED, "tie_word_embeddings": True}),
    "mistral": ("MistralForCausalLM", {**_GROUPED, "sliding_window": 8}),
    "qwen2": ("Qwen2ForCausalLM", _GROUPED),
    "qwen3": ("Qwen3ForCausalLM", _GEMMA),
    "phi3": ("Phi3ForCausalLM", _GROUPED),
    "gemma": ("GemmaForCausalLM", _GEMMA),
    "gemma3": (
        "Gemma3ForCausalLM",
        {**_GEMMA, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "olmo2": ("Olmo2ForCausalLM", _GROUPED),
    "granite": ("GraniteForCausalLM", _GROUPED),
    "llama4": (
        "Llama4ForCausalLM",
        {**_GEMMA, "num_local_experts": 2, "intermediate_size_mlp": 80, "attention_chunk_size": 8},
    ),
    "smollm3": ("SmolLM3ForCausalLM", _GROUPED),
}


def make_config(family: str, **fields: Any) -> PretrainedConfig:
    """The configuration of a tiny teacher, with other fields as given."""
    name, own = FAMILIES[family]
    return getattr(transformers, name).config_class(**{**own, **fields})


def make_tiny(family: str, *, class_name: str | None = None, seed: int = 1, **fields: Any) -> Any:
    """A tiny teacher in evaluation mode: biases and norms random, logits of a standard deviation of about 1."""
    model_class = getattr(transformers, class_name or FAMILIES[family][0])
    torch.manual_seed(seed)
    model = model_class(make_config(family, **fields)).eval()
    return with_random_weights(model, seed)


@torch.no_grad()
def with_random_weights(model: PreTrainedModel, seed: int = 1) -> PreTrainedModel:
    """Give a model weights that hide nothing, and logits of a standard deviation of 1."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        drawn = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() < 2:
            parameter.add_(0.3 * drawn)
        else:
            parameter.copy_(drawn * parameter.shape[-1] ** -0.5)
    spread = float(outputs(model).std())
    last = model.get_output_embeddings()
    if last is not None:
        last.weight /= spread  # where it is tied a norm keeps what the embeddings become
        if last.bias is not None:
            last.bias /= spread
    return model


def batch(vocabulary: int = VOCABULARY, length: int = 16) -> dict[str, Tensor]:
    """Random ids, three examples, two of them padded at the right."""
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(3, vocabulary, (3, length), generator=generator)
    mask = (torch.arange(length) < torch.tensor([[length], [length - 5], [length // 2]])).long()
    return {"input_ids": ids.where(mask.bool(), torch.zeros_like(ids)), "attention_mask": mask}


@torch.no_grad()
def outputs(model: PreTrainedModel, inputs: dict[str, Tensor] | None = None) -> Tensor:
    """Logits (hidden states of a bare encoder) where there is no padding, shape (tokens, size)."""
    inputs = inputs or batch()
    output = model(**inputs)
    return (output.logits if "logits" in output else output[0])[inputs["attention_mask"].bool()]


def largest_difference(teacher: PreTrainedModel, student: PreTrainedModel) -> float:
    """Between the logits of two models on the same padded batch, over the tokens that the teacher knows."""
    theirs, ours = outputs(teacher), outputs(student)
    if theirs.dim() > 1:
        ours = ours[..., : theirs.shape[-1]]
    return float((theirs - ours).abs().max())
