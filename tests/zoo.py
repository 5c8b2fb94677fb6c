"""Tiny random models, one per supported architecture. Nothing is downloaded.

All parameters are drawn at a scale that keeps the size of activations. With the std of 0.02 that transformers uses, the
output of a tiny model is nearly constant, and comparisons of outputs would always pass.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import transformers
from transformers import AutoConfig, PreTrainedModel
from transformers.utils import ModelOutput

Builder = Callable[..., PreTrainedModel]
VOCAB, WIDTH, LAYERS = 96, 32, 3

_IDS = dict(vocab_size=VOCAB, pad_token_id=0, bos_token_id=1, eos_token_id=2)
_BODY = dict(hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=LAYERS, num_attention_heads=4)
_LLAMA = dict(_IDS, **_BODY, num_key_value_heads=2, max_position_embeddings=64)
_HEAD_DIM = dict(_LLAMA, head_dim=8)
_MOE = dict(_HEAD_DIM, num_experts=4, num_local_experts=4, num_experts_per_tok=2, moe_intermediate_size=16)
_SLIDING = dict(
    _HEAD_DIM,
    sliding_window=4,
    query_pre_attn_scalar=8,
    layer_types=["sliding_attention", "full_attention", "sliding_attention"],
)
_LINEAR = dict(
    _MOE,
    layer_types=["linear_attention", "full_attention", "linear_attention"],
    shared_expert_intermediate_size=16,
    linear_num_value_heads=4,
    linear_num_key_heads=2,
    linear_key_head_dim=8,
    linear_value_head_dim=8,
)
_DEEPSEEK = dict(
    _LLAMA,
    num_key_value_heads=4,
    n_routed_experts=4,
    num_experts_per_tok=2,
    moe_intermediate_size=16,
    n_group=1,
    topk_group=1,
    first_k_dense_replace=1,
    q_lora_rank=8,
    kv_lora_rank=8,
    qk_nope_head_dim=8,
    qk_rope_head_dim=8,
    v_head_dim=8,
)
_MROPE = dict(_HEAD_DIM, rope_parameters=dict(rope_type="default", rope_theta=1e4, mrope_section=[2, 1, 1]))
_GPT2 = dict(
    _IDS,
    n_embd=WIDTH,
    n_layer=LAYERS,
    n_head=4,
    n_positions=64,
    resid_pdrop=0.0,
    embd_pdrop=0.0,
    attn_pdrop=0.0,
)
_OPT = dict(
    _IDS,
    **_BODY,
    ffn_dim=48,
    word_embed_proj_dim=WIDTH,
    max_position_embeddings=64,
    dropout=0.0,
    attention_dropout=0.0,
)
_NO_DROPOUT = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
_BERT = dict(_IDS, **_BODY, **_NO_DROPOUT, max_position_embeddings=66, type_vocab_size=2)
_VIT = dict(_BODY, **_NO_DROPOUT, image_size=16, patch_size=8, num_labels=5)
_T5 = dict(
    _IDS,
    d_model=WIDTH,
    d_kv=8,
    d_ff=48,
    num_layers=2,
    num_decoder_layers=2,
    num_heads=4,
    decoder_start_token_id=0,
    dropout_rate=0.0,
)


def _build(model_type: str, auto: str, settings: dict[str, Any], /, **overrides: Any) -> PreTrainedModel:
    config = AutoConfig.for_model(model_type, **{**settings, **overrides})
    model = getattr(transformers, auto).from_config(config, dtype=torch.float32)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=draw)
            if parameter.ndim == 1:  # norms and biases: not exactly 1 or 0
                parameter.add_(0.2 * noise)
            else:  # weights, experts (stacked weights) and patch convolutions
                fan_in = parameter[0].numel() if parameter.ndim == 4 else parameter.shape[-1]
                parameter.copy_(noise * fan_in**-0.5)
    if model.can_generate():
        model.generation_config.eos_token_id = None  # generation does not stop early
    return model.eval()


def _builders(auto: str, models: dict[str, dict[str, Any]]) -> dict[str, Builder]:
    return {name: partial(_build, _MODEL_TYPES.get(name, name), auto, settings) for name, settings in models.items()}


_MODEL_TYPES = {"gemma3": "gemma3_text"}
_CAUSAL = _builders(
    "AutoModelForCausalLM",
    {
        "llama": _LLAMA,
        "qwen2": _LLAMA,
        "qwen3": _HEAD_DIM,
        "qwen3_moe": _MOE,
        "mistral": _LLAMA,
        "mixtral": _MOE,
        "gemma2": _SLIDING,
        "gemma3": _SLIDING,
        "phi3": _LLAMA,
        "gpt2": _GPT2,
        "gpt_neox": dict(_LLAMA, hidden_dropout=0.0, attention_dropout=0.0),
        "opt": _OPT,
        "falcon": dict(_IDS, **_BODY, bias=True),
        "bloom": dict(_IDS, **_BODY),
        "olmo2": _LLAMA,
    },
)

ARCHITECTURES: dict[str, Builder] = {
    **_CAUSAL,
    **_builders("AutoModelForMaskedLM", {"bert": _BERT, "roberta": _BERT}),
    **_builders("AutoModelForSeq2SeqLM", {"t5": _T5}),
    **_builders("AutoModelForImageClassification", {"vit": _VIT}),
}
"""Functions that build a model with seeded weights in evaluation mode and float32. Keywords override its config."""

CAUSAL = tuple(_CAUSAL)
ENCODERS = ("bert", "roberta", "vit")
ENCODER_DECODERS = ("t5", "mt5", "umt5")
VISION = ("vit", "deit", "dinov2")

_LLAMA_LIKE = (
    "qwen2_moe qwen3_vl_text ministral ministral3 phi phimoe gemma olmoe stablelm starcoder2 smollm3 cohere "
    "cohere2 glm gpt_oss seed_oss helium nemotron persimmon arcee apertus bitnet ernie4_5 hunyuan_v1_dense "
    "llama4_text olmo3 flex_olmo exaone4 glm4"
)
_BERT_LIKE = "xlm-roberta camembert ernie data2vec-text deberta-v2 esm roberta-prelayernorm modernbert"

MORE: dict[str, Builder] = {
    **_builders("AutoModel", dict.fromkeys(_LLAMA_LIKE.split(), _MOE)),
    **_builders("AutoModel", dict.fromkeys(("qwen2_vl_text", "qwen2_5_vl_text"), _MROPE)),
    **_builders("AutoModel", dict.fromkeys(("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"), _LINEAR)),
    **_builders("AutoModel", dict.fromkeys(_BERT_LIKE.split(), _BERT)),
    **_builders("AutoModelForSeq2SeqLM", {"mt5": _T5, "umt5": _T5}),
    **_builders("AutoModel", {"deit": _VIT, "dinov2": _VIT}),
    **_builders(
        "AutoModel",
        {
            "olmo": _LLAMA,
            "deepseek_v3": _DEEPSEEK,
            "lfm2": dict(_LLAMA, layer_types=["conv", "full_attention", "conv"]),
            "gpt_bigcode": _GPT2,
            "gptj": dict(_GPT2, rotary_dim=4),
            "codegen": dict(_GPT2, rotary_dim=4),
            "gpt_neo": dict(_OPT, attention_types=[[["global", "local", "global"], 1]], num_heads=4),
            "mpt": dict(_IDS, d_model=WIDTH, n_layers=LAYERS, n_heads=4, max_seq_len=64),
            "xglm": dict(_OPT, d_model=WIDTH, num_layers=LAYERS, attention_heads=4),
            "biogpt": _BERT,
            "electra": dict(_BERT, embedding_size=WIDTH),
            "distilbert": dict(_IDS, dim=WIDTH, n_layers=LAYERS, n_heads=4, hidden_dim=48),
        },
    ),
}
"""The other architectures of `BRANCHES`, without a head, for tests of the sites."""


def with_head(name: str, auto: str, **overrides: Any) -> PreTrainedModel:
    """Build an architecture with the head of another auto class of transformers."""
    model_type, _, settings = (ARCHITECTURES | MORE)[name].args  # type: ignore[attr-defined]
    return _build(model_type, auto, settings, **overrides)


def example_inputs(name: str, batch: int = 2, seq: int = 7, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return inputs for an architecture: token ids without special tokens, or pixels."""
    draw = torch.Generator().manual_seed(seed)
    if name in VISION:
        return {"pixel_values": torch.randn(batch, 3, 16, 16, generator=draw)}
    ids = torch.randint(3, VOCAB, (batch, seq), generator=draw)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if name in ENCODER_DECODERS:
        inputs["decoder_input_ids"] = torch.randint(3, VOCAB, (batch, seq - 2), generator=draw)
    return inputs


def output_of(output: ModelOutput) -> torch.Tensor:
    """Return the logits, or the last hidden state of a model without a head."""
    return output.logits if "logits" in output else output.last_hidden_state
