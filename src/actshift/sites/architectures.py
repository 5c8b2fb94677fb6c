"""What structure cannot tell: which module's output joins the skip, for each kind of model.

Every row is held to `block_in + post_attention + post_mlp == block_out` by `tests/sites/test_identity.py`. Names are
no guide: `post_attention_layernorm` ends the attention branch in Gemma-2, and starts the MLP's in Llama.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Branches:
    """The modules, named from the block, whose outputs are what attention and MLP add to the skip.

    A number indexes a list (-1 is its last). Where blocks of one model differ, a branch lists its possible names.
    """

    attention: str | tuple[str, ...]
    mlp: str


_PRE_NORM = Branches("self_attn", "mlp")
_NORMED_BRANCH = Branches("post_attention_layernorm", "post_feedforward_layernorm")
_FLAT_MLP = Branches("self_attn", "fc2")
_GPT2 = Branches("attn", "mlp")
_T5 = Branches("layer.0.SelfAttention", "layer.-1.DenseReluDense")
_BERT = Branches(
    "attention.output.dense", "output.dense"
)  # post-norm: each sum is normed, LayerNorm(skip + branch)

BRANCHES: dict[str, Branches] = {
    **dict.fromkeys(("llama", "qwen2", "qwen3", "mistral", "phi3", "mixtral", "qwen3_moe"), _PRE_NORM),
    **dict.fromkeys(("gemma2", "gemma3_text", "olmo2"), _NORMED_BRANCH),
    "gpt2": _GPT2,
    "gpt_neox": Branches("attention", "mlp"),
    "falcon": Branches("self_attention", "mlp"),
    "opt": _FLAT_MLP,
    "bloom": Branches("self_attention.dense", "mlp.dense_4h_to_h"),  # the modules around them add the skip
    **dict.fromkeys(("bert", "roberta"), _BERT),
    "t5": _T5,
    "vit": Branches("attention", "mlp"),
}
"""Branch hosts by the config's `model_type`."""
