"""What structure cannot tell: which module's output joins the skip, for each kind of model.

Every row is held to `block_in + post_attention + post_mlp == block_out` by `tests/sites/test_identity.py`.
Names are no guide: `post_attention_layernorm` ends Gemma-2's attention branch, and begins Llama's MLP branch.
A model that scales its branches on the way to the skip (Granite, Doge, Gemma-4) has no such host.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Branches:
    """The modules, named from the block, whose outputs are what attention and MLP add to the skip.

    A number in a name indexes a list, -1 its last. Of several names the first that a block has is taken: blocks of
    a hybrid model mix tokens in different ways, and transformers renames modules between versions.
    """

    attention: str | tuple[str, ...]
    mlp: str | tuple[str, ...]


def _rows(model_types: str, branches: Branches) -> dict[str, Branches]:
    return dict.fromkeys(model_types.split(), branches)


BRANCHES: dict[str, Branches] = {
    **_rows(
        "llama qwen2 qwen3 qwen2_moe qwen3_moe qwen2_vl_text qwen2_5_vl_text qwen3_vl_text mistral ministral "
        "ministral3 mixtral phi phi3 phimoe gemma olmo olmoe stablelm starcoder2 smollm3 cohere cohere2 "
        "glm gpt_oss deepseek_v3 seed_oss helium nemotron persimmon arcee apertus bitnet ernie4_5 "
        "hunyuan_v1_dense",
        Branches("self_attn", "mlp"),
    ),
    **_rows("qwen3_next qwen3_5_text qwen3_5_moe_text", Branches(("self_attn", "linear_attn"), "mlp")),
    **_rows("llama4_text", Branches("self_attn", "feed_forward")),
    **_rows("lfm2", Branches(("self_attn", "conv"), "feed_forward")),
    **_rows(
        "gemma2 gemma3_text olmo2 olmo3 flex_olmo exaone4",
        Branches("post_attention_layernorm", "post_feedforward_layernorm"),
    ),
    **_rows("glm4", Branches("post_self_attn_layernorm", "post_mlp_layernorm")),
    **_rows("gpt2 gpt_bigcode gpt_neo gptj codegen modernbert", Branches("attn", "mlp")),
    **_rows("gpt_neox", Branches("attention", "mlp")),
    **_rows("vit deit", Branches("attention", ("mlp", "output.dense"))),  # the latter in transformers 5.0
    **_rows("falcon", Branches("self_attention", "mlp")),
    **_rows("opt xglm biogpt", Branches("self_attn", "fc2")),
    # The modules around these add the skip themselves.
    **_rows("bloom", Branches("self_attention.dense", "mlp.dense_4h_to_h")),
    **_rows("mpt", Branches("attn", "ffn.down_proj")),
    **_rows("esm roberta-prelayernorm", Branches("attention.output.dense", "output.dense")),
    # Post-norm: the skip and the branch are normed together, LayerNorm(skip + branch).
    **_rows(
        "bert roberta xlm-roberta camembert electra ernie data2vec-text deberta-v2",
        Branches("attention.output.dense", "output.dense"),
    ),
    **_rows("distilbert", Branches("attention", "ffn")),
    # A decoder block of an encoder-decoder adds its cross-attention too, which is no site.
    **_rows("t5 mt5 umt5", Branches("layer.0.SelfAttention", "layer.-1.DenseReluDense")),
    **_rows("dinov2", Branches("layer_scale1", "layer_scale2")),
}
"""Branch hosts by `model_type` of the config nearest to the block."""
