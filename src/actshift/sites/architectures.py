"""The steering sites, and the modules of each architecture that they refer to.

To add a site, add a row to `SITES`, and a field to `Branches` if no field names its host module yet. Module names are
no reliable guide to a block's structure: `post_attention_layernorm` ends the attention branch of Gemma-2, but starts
the MLP branch of Llama. The tests in `tests/sites` therefore check three identities for each architecture:

* block_in + post_attention + post_mlp == block_out;
* the input of `heads` is `attention weights @ values` of all query heads, concatenated;
* with `outputs` set to zero, the MLP branch is zero.

Models that scale a branch on its way to the residual stream (Granite, Doge, Gemma-4) have no module for these sites.
"""

from dataclasses import dataclass

Names = str | tuple[str, ...]


@dataclass(frozen=True)
class Site:
    """A place in a transformer block where a shift can be added. Source: docs/method.md#sites.

    Attributes:
        description: a phrase for help texts.
        part: the field of `Branches` that names the host module. None means the block itself.
        at_heads: the shift is added to the host's input, the concatenated outputs of the attention heads.
        written_by_mlp: the output map of the block's MLP writes to this site, so the orthogonality rule applies here.
    """

    description: str
    part: str | None = None
    at_heads: bool = False
    written_by_mlp: bool = False


SITES = {
    "post_block": Site("the residual stream after the block", written_by_mlp=True),
    "post_mlp": Site("the output of the MLP branch", part="mlp", written_by_mlp=True),
    "post_attention": Site("the output of the attention branch", part="attention"),
    "attention_heads": Site("the attention heads before the output projection", part="heads", at_heads=True),
}
"""The steering sites by name."""


@dataclass(frozen=True)
class Branches:
    """Names of a block's parts, relative to the block.

    A number in a name is an index into a list, -1 for the last element. If a field has several names, the first one
    that a block has is used, except for `outputs`, where all of them are used: blocks differ within hybrid models, and
    transformers renames modules between versions.

    Attributes:
        attention: the module whose output the attention branch adds to the residual stream.
        mlp: the module whose output the MLP branch adds to the residual stream.
        heads: the output projection of the attention, which mixes the heads.
        outputs: the weights that write the MLP branch, as modules or as the stacked parameters of experts.
        entry: the module whose input is the MLP's input. By default the parent of the first of `outputs`.
    """

    attention: Names
    mlp: Names
    heads: Names = "self_attn.o_proj"
    outputs: Names = tuple(f"mlp.{part}down_proj" for part in ("", "experts.", "shared_expert.", "shared_experts."))
    entry: Names = ()

    @property
    def entries(self) -> tuple[str, ...]:
        """The candidates for the module whose input is the MLP's input."""
        return as_tuple(self.entry) or tuple(output.rpartition(".")[0] for output in as_tuple(self.outputs))


def as_tuple(names: Names) -> tuple[str, ...]:
    """Return one name or several as a tuple."""
    return (names,) if isinstance(names, str) else names


_PARTS = {
    "llama qwen2 qwen3 qwen2_moe qwen3_moe qwen2_vl_text qwen2_5_vl_text qwen3_vl_text mistral ministral ministral3 "
    "mixtral phi3 phimoe gemma olmo olmoe stablelm smollm3 cohere cohere2 glm gpt_oss deepseek_v3 seed_oss helium "
    "nemotron arcee apertus bitnet ernie4_5 hunyuan_v1_dense": Branches("self_attn", "mlp"),
    "starcoder2": Branches("self_attn", "mlp", outputs="mlp.c_proj"),
    "phi": Branches("self_attn", "mlp", "self_attn.dense", "mlp.fc2"),
    "persimmon": Branches("self_attn", "mlp", "self_attn.dense", "mlp.dense_4h_to_h"),
    "qwen3_next qwen3_5_text qwen3_5_moe_text": Branches(("self_attn", "linear_attn"), "mlp"),
    "llama4_text": Branches(
        "self_attn",
        "feed_forward",
        outputs=("feed_forward.down_proj", "feed_forward.experts.down_proj", "feed_forward.shared_expert.down_proj"),
    ),
    "lfm2": Branches(("self_attn", "conv"), "feed_forward", "self_attn.out_proj", "feed_forward.w2"),
    "gemma2 gemma3_text olmo2 olmo3 flex_olmo exaone4": Branches(
        "post_attention_layernorm", "post_feedforward_layernorm"
    ),
    "glm4": Branches("post_self_attn_layernorm", "post_mlp_layernorm"),
    "gpt2 gpt_bigcode": Branches("attn", "mlp", "attn.c_proj", "mlp.c_proj"),
    "gpt_neo": Branches("attn", "mlp", "attn.attention.out_proj", "mlp.c_proj"),
    "gptj codegen": Branches("attn", "mlp", "attn.out_proj", "mlp.fc_out"),
    "modernbert": Branches("attn", "mlp", "attn.Wo", "mlp.Wo"),
    "gpt_neox": Branches("attention", "mlp", "attention.dense", "mlp.dense_4h_to_h"),
    "vit deit": Branches(  # the second of two names is the one in transformers 5.0
        "attention",
        ("mlp", "output.dense"),
        ("attention.o_proj", "attention.output.dense"),
        ("mlp.fc2", "output.dense"),
        ("mlp", "intermediate"),
    ),
    "falcon": Branches("self_attention", "mlp", "self_attention.dense", "mlp.dense_4h_to_h"),
    "opt xglm biogpt": Branches("self_attn", "fc2", "self_attn.out_proj", "fc2", "fc1"),
    # The modules around these add the residual connection themselves.
    "bloom": Branches("self_attention.dense", "mlp.dense_4h_to_h", "self_attention.dense", "mlp.dense_4h_to_h"),
    "mpt": Branches("attn", "ffn.down_proj", "attn.out_proj", "ffn.down_proj"),
    # bert and the following are post-norm: LayerNorm(residual stream + branch).
    "esm roberta-prelayernorm bert roberta xlm-roberta camembert electra ernie data2vec-text deberta-v2": Branches(
        "attention.output.dense", "output.dense", "attention.output.dense", "output.dense", "intermediate"
    ),
    "distilbert": Branches("attention", "ffn", "attention.out_lin", "ffn.lin2"),
    "t5 mt5 umt5": Branches(  # a decoder block also adds its cross-attention, which is not a site
        "layer.0.SelfAttention", "layer.-1.DenseReluDense", "layer.0.SelfAttention.o", "layer.-1.DenseReluDense.wo"
    ),
    "dinov2": Branches(
        "layer_scale1",
        "layer_scale2",
        ("attention.o_proj", "attention.output.dense"),
        ("mlp.fc2", "mlp.down_proj", "mlp.weights_out"),  # plain; gated (giant); gated in transformers 5.0
    ),
}

BRANCHES = {model_type: branches for model_types, branches in _PARTS.items() for model_type in model_types.split()}
"""The parts of a block by the `model_type` of the config nearest to it."""

TOKEN_AXES = {"xlnet": (1, 0), "fsmt": (1, 0), "gemma3n_text": (1, 2)}
"""The axes of batch and sequence in a block's hidden states by `model_type`. In other models they are 0 and 1.

XLNet and FSMT are time-major. The first axis of Gemma-3n is that of its residual streams, which are all steered.
"""

UNHOOKED = ("squeezebert",)
"""The `model_type` of models that call `block.forward(x)` where others call `block(x)`."""
