"""What structure cannot tell: which module's output joins the skip, and which weights write it, for each kind of model.

`tests/sites` holds every row to three identities: `block_in + post_attention + post_mlp == block_out`; what enters
`heads` is `attention weights @ values` of each query head, side by side; `outputs` at zero silence the MLP's branch.
Names are no guide: `post_attention_layernorm` ends Gemma-2's attention branch, and begins Llama's MLP branch.
A model that scales its branches on the way to the skip (Granite, Doge, Gemma-4) has no such host.
"""

from __future__ import annotations

from dataclasses import dataclass

Names = str | tuple[str, ...]


@dataclass(frozen=True)
class Branches:
    """The parts of a block, named from the block.

    `attention` and `mlp` are the modules whose outputs are what the two branches add to the skip, `heads` the
    attention's output projection, which mixes the heads, and `outputs` the weights that write the MLP's branch:
    modules, or the stacked parameters of experts. The last two are Llama's unless a row says otherwise. `entry` is the
    module that takes the MLP's input, by default what holds the first of `outputs`.

    A number in a name indexes a list, -1 its last. Of several names the first that a block has is taken, and of
    `outputs` all that it has: blocks of a hybrid model mix tokens in different ways, experts come with or without a
    shared one, and transformers renames modules between versions.
    """

    attention: Names
    mlp: Names
    heads: Names = "self_attn.o_proj"
    outputs: Names = (
        "mlp.down_proj",
        "mlp.experts.down_proj",
        "mlp.shared_expert.down_proj",
        "mlp.shared_experts.down_proj",
    )
    entry: Names = ()


def _rows(model_types: str, branches: Branches) -> dict[str, Branches]:
    return dict.fromkeys(model_types.split(), branches)


BRANCHES: dict[str, Branches] = {
    **_rows(
        "llama qwen2 qwen3 qwen2_moe qwen3_moe qwen2_vl_text qwen2_5_vl_text qwen3_vl_text mistral ministral "
        "ministral3 mixtral phi3 phimoe gemma olmo olmoe stablelm smollm3 cohere cohere2 glm gpt_oss deepseek_v3 "
        "seed_oss helium nemotron arcee apertus bitnet ernie4_5 hunyuan_v1_dense",
        Branches("self_attn", "mlp"),
    ),
    **_rows("starcoder2", Branches("self_attn", "mlp", outputs="mlp.c_proj")),
    **_rows("phi", Branches("self_attn", "mlp", "self_attn.dense", "mlp.fc2")),
    **_rows("persimmon", Branches("self_attn", "mlp", "self_attn.dense", "mlp.dense_4h_to_h")),
    **_rows("qwen3_next qwen3_5_text qwen3_5_moe_text", Branches(("self_attn", "linear_attn"), "mlp")),
    **_rows(
        "llama4_text",
        Branches(
            "self_attn",
            "feed_forward",
            outputs=(
                "feed_forward.down_proj",
                "feed_forward.experts.down_proj",
                "feed_forward.shared_expert.down_proj",
            ),
        ),
    ),
    **_rows("lfm2", Branches(("self_attn", "conv"), "feed_forward", "self_attn.out_proj", "feed_forward.w2")),
    **_rows(
        "gemma2 gemma3_text olmo2 olmo3 flex_olmo exaone4",
        Branches("post_attention_layernorm", "post_feedforward_layernorm"),
    ),
    **_rows("glm4", Branches("post_self_attn_layernorm", "post_mlp_layernorm")),
    **_rows("gpt2 gpt_bigcode", Branches("attn", "mlp", "attn.c_proj", "mlp.c_proj")),
    **_rows("gpt_neo", Branches("attn", "mlp", "attn.attention.out_proj", "mlp.c_proj")),
    **_rows("gptj codegen", Branches("attn", "mlp", "attn.out_proj", "mlp.fc_out")),
    **_rows("modernbert", Branches("attn", "mlp", "attn.Wo", "mlp.Wo")),
    **_rows("gpt_neox", Branches("attention", "mlp", "attention.dense", "mlp.dense_4h_to_h")),
    # Of two names, the latter is that of transformers 5.0.
    **_rows(
        "vit deit",
        Branches(
            "attention",
            ("mlp", "output.dense"),
            ("attention.o_proj", "attention.output.dense"),
            ("mlp.fc2", "output.dense"),
            ("mlp", "intermediate"),
        ),
    ),
    **_rows("falcon", Branches("self_attention", "mlp", "self_attention.dense", "mlp.dense_4h_to_h")),
    **_rows("opt xglm biogpt", Branches("self_attn", "fc2", "self_attn.out_proj", "fc2", "fc1")),
    # The modules around these add the skip themselves.
    **_rows(
        "bloom", Branches("self_attention.dense", "mlp.dense_4h_to_h", "self_attention.dense", "mlp.dense_4h_to_h")
    ),
    **_rows("mpt", Branches("attn", "ffn.down_proj", "attn.out_proj", "ffn.down_proj")),
    **_rows(
        # From bert on they are post-norm: the skip and the branch are normed together, LayerNorm(skip + branch).
        "esm roberta-prelayernorm bert roberta xlm-roberta camembert electra ernie data2vec-text deberta-v2",
        Branches("attention.output.dense", "output.dense", "attention.output.dense", "output.dense", "intermediate"),
    ),
    **_rows("distilbert", Branches("attention", "ffn", "attention.out_lin", "ffn.lin2")),
    # A decoder block of an encoder-decoder adds its cross-attention too, which is no site.
    **_rows(
        "t5 mt5 umt5",
        Branches(
            "layer.0.SelfAttention",
            "layer.-1.DenseReluDense",
            "layer.0.SelfAttention.o",
            "layer.-1.DenseReluDense.wo",
        ),
    ),
    **_rows(
        "dinov2",
        Branches(
            "layer_scale1",
            "layer_scale2",
            ("attention.o_proj", "attention.output.dense"),
            ("mlp.fc2", "mlp.down_proj", "mlp.weights_out"),  # plain; gated, as in the giant one; and that in 5.0
        ),
    ),
}
"""Rows by `model_type` of the config nearest to the block."""
