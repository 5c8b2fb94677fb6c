"""Tiny random models, one for each architecture that actshift promises: nothing is downloaded.

Every parameter is drawn at a scale that keeps signals alive (transformers' own std of 0.02 leaves tiny models nearly
constant, so that tests would pass whatever they compare).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import transformers
from transformers import AutoConfig, PreTrainedModel
from transformers.utils import ModelOutput

VOCAB, WIDTH, LAYERS = 96, 32, 3

_IDS = dict(vocab_size=VOCAB, pad_token_id=0, bos_token_id=1, eos_token_id=2)
_LLAMA = dict(
    **_IDS,
    hidden_size=WIDTH,
    intermediate_size=48,
    num_hidden_layers=LAYERS,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
)
_HEAD_DIM = dict(_LLAMA, head_dim=8)
_SLIDING = dict(
    _HEAD_DIM,
    sliding_window=4,
    query_pre_attn_scalar=8,
    layer_types=["sliding_attention", "full_attention", "sliding_attention"],
)
_BERT = dict(
    _IDS,
    hidden_size=WIDTH,
    intermediate_size=48,
    num_hidden_layers=LAYERS,
    num_attention_heads=4,
    max_position_embeddings=66,
    type_vocab_size=2,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
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
_T5 = dict(
    _IDS, d_model=WIDTH, d_kv=8, d_ff=48, num_layers=2, num_decoder_layers=2, num_heads=4,
    decoder_start_token_id=0, dropout_rate=0.0,
)  # fmt: skip
_VIT = dict(
    hidden_size=WIDTH,
    intermediate_size=48,
    num_hidden_layers=LAYERS,
    num_attention_heads=4,
    image_size=16,
    patch_size=8,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    num_labels=5,
)

_CAUSAL: dict[str, dict[str, Any]] = {
    "llama": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _HEAD_DIM,
    "qwen3_moe": dict(_HEAD_DIM, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16),
    "mistral": _LLAMA,
    "mixtral": dict(_LLAMA, num_local_experts=4, num_experts_per_tok=2),
    "gemma2": _SLIDING,
    "gemma3": _SLIDING,
    "phi3": _LLAMA,
    "gpt2": _GPT2,
    "gpt_neox": dict(_LLAMA, num_key_value_heads=4, hidden_dropout=0.0, attention_dropout=0.0),
    "opt": dict(
        _IDS, hidden_size=WIDTH, ffn_dim=48, num_hidden_layers=LAYERS, num_attention_heads=4, word_embed_proj_dim=WIDTH,
        max_position_embeddings=64, dropout=0.0, attention_dropout=0.0,
    ),
    "falcon": dict(_IDS, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=4, bias=True),
    "bloom": dict(_IDS, hidden_size=WIDTH, n_layer=LAYERS, n_head=4),
    "olmo2": _LLAMA,
}  # fmt: skip
_MODEL_TYPES = {"gemma3": "gemma3_text"}


def _build(name: str, auto: str, settings: Mapping[str, Any], /, **overrides: Any) -> PreTrainedModel:
    config = AutoConfig.for_model(_MODEL_TYPES.get(name, name), **{**settings, **overrides})
    model = getattr(transformers, auto).from_config(config, dtype=torch.float32)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=draw)
            if parameter.ndim > 1:
                parameter.copy_(
                    noise * parameter[0].numel() ** -0.5
                    if parameter.ndim == 4
                    else noise * parameter.shape[-1] ** -0.5
                )
            else:  # norms and biases: away from their start of exactly 1 or 0
                parameter.add_(0.2 * noise)
    if model.can_generate():
        model.generation_config.eos_token_id = None  # generation runs to its full length
    return model.eval()


ARCHITECTURES: dict[str, Callable[..., PreTrainedModel]] = {
    **{name: partial(_build, name, "AutoModelForCausalLM", settings) for name, settings in _CAUSAL.items()},
    "bert": partial(_build, "bert", "AutoModelForMaskedLM", _BERT),
    "roberta": partial(_build, "roberta", "AutoModelForMaskedLM", _BERT),
    "t5": partial(_build, "t5", "AutoModelForSeq2SeqLM", _T5),
    "vit": partial(_build, "vit", "AutoModelForImageClassification", _VIT),
}
"""Each builds one model, seeded, in eval mode and float32; keywords override its config."""

CAUSAL = tuple(_CAUSAL)
ENCODERS = ("bert", "roberta", "vit")


def example_inputs(name: str, batch: int = 2, seq: int = 7, seed: int = 0) -> dict[str, torch.Tensor]:
    """Inputs proper to an architecture: token ids that are never special, or pixels."""
    draw = torch.Generator().manual_seed(seed)
    if name == "vit":
        return {"pixel_values": torch.randn(batch, 3, 16, 16, generator=draw)}
    ids = torch.randint(3, VOCAB, (batch, seq), generator=draw)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if name == "t5":
        inputs["decoder_input_ids"] = torch.randint(3, VOCAB, (batch, seq - 2), generator=draw)
    return inputs


def output_of(output: ModelOutput) -> torch.Tensor:
    """The tensor to compare: the logits, or the last hidden state of a model without a head."""
    return output.logits if "logits" in output else output.last_hidden_state
