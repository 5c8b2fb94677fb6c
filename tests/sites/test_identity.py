"""The sites of both branches: the outputs of the hosts sum to the change of the residual stream."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from actshift.sites import BRANCHES, resolve
from tests.zoo import ARCHITECTURES, MORE, example_inputs

ALL = {**ARCHITECTURES, **MORE}
VARIANTS = [
    ("gpt_neox", dict(use_parallel_residual=False)),
    ("falcon", dict(parallel_attn=False)),
    ("falcon", dict(new_decoder_architecture=True, num_kv_heads=2)),
    ("phi3", dict(attention_bias=True)),
    ("stablelm", dict(use_parallel_residual=True)),
    ("opt", dict(do_layer_norm_before=False)),
    ("t5", dict(feed_forward_proj="gated-gelu")),
]

_BERT_NORMS = ("attention.output.LayerNorm", "output.LayerNorm")
POST_NORMS = {  # post-norm blocks normalise each sum: the norm after the attention, and the norm after the MLP
    **dict.fromkeys(
        ("bert", "roberta", "xlm-roberta", "camembert", "electra", "ernie", "data2vec-text", "deberta-v2"),
        _BERT_NORMS,
    ),
    "distilbert": ("sa_layer_norm", "output_layer_norm"),
}


def _first(output) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def _streams(model: nn.Module, inputs: dict[str, Tensor]) -> list[dict]:
    """Return for each block its input, its output, and the outputs of its branches' hosts."""
    streams: list[dict] = []

    def enter(record, module, args, kwargs):
        record["in"] = (args[0] if args else kwargs["hidden_states"]).clone()

    def leave(record, name, module, args, output):
        record[name] = _first(output).clone()

    sites = [resolve(model, site) for site in ("post_block", "post_attention", "post_mlp")]
    for block, attention, mlp in zip(*sites, strict=True):
        record = {"block": block.module}
        block.module.register_forward_pre_hook(partial(enter, record), with_kwargs=True)
        block.module.register_forward_hook(partial(leave, record, "out"))
        attention.module.register_forward_hook(partial(leave, record, "attention"))
        mlp.module.register_forward_hook(partial(leave, record, "mlp"))
        for name, module in block.module.named_modules():
            if name.endswith("EncDecAttention"):
                module.register_forward_hook(partial(leave, record, "cross"))
        streams.append(record)
    with torch.no_grad():
        model(**inputs)
    return streams


def _assert_identity(record: dict, norms: tuple[str, str] | None) -> None:
    shape = record["in"].shape  # OPT flattens batch and sequence before fc2
    attention, mlp, out = (record[name].view(shape) for name in ("attention", "mlp", "out"))
    if norms is None:
        expected = record["in"] + attention + record.get("cross", 0) + mlp
    else:
        after_attention, after_mlp = (record["block"].get_submodule(name) for name in norms)
        with torch.no_grad():
            expected = after_mlp(after_attention(record["in"] + attention) + mlp)
    for branch in (attention, mlp):
        assert branch.std() > 0.01, "a branch with output zero makes the test vacuous"
    torch.testing.assert_close(expected, out, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_input_plus_branches_is_the_output_of_every_block(name):
    model = ALL[name]()
    for record in _streams(model, example_inputs(name)):
        _assert_identity(record, POST_NORMS.get(name))


@pytest.mark.parametrize(("name", "overrides"), VARIANTS)
def test_input_plus_branches_is_the_output_in_config_variants(name, overrides):
    model = ALL[name](**overrides)
    norms = ("self_attn_layer_norm", "final_layer_norm") if "do_layer_norm_before" in overrides else None
    for record in _streams(model, example_inputs(name)):
        _assert_identity(record, norms)


def test_the_check_detects_a_wrong_module():
    """Llama's post_attention_layernorm is the norm before the MLP, so the identity must fail with it."""
    model = ALL["llama"]()
    block = resolve(model)[0].module
    outputs = {}
    block.post_attention_layernorm.register_forward_hook(lambda module, args, output: outputs.update(attention=output))
    record = _streams(model, example_inputs("llama"))[0]
    with pytest.raises(AssertionError):
        _assert_identity({**record, **outputs}, None)


def test_every_architecture_in_the_table_is_tested():
    assert set(BRANCHES) == {build().config.model_type for build in ALL.values()}
