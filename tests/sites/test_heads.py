"""The site `attention_heads`: the host's input is the concatenated outputs of the query heads."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from actshift.errors import ActshiftError
from actshift.sites import resolve
from tests.zoo import ARCHITECTURES, MORE, WIDTH, example_inputs

ALL = {**ARCHITECTURES, **MORE}
HEADS = 4
HYBRID = {"qwen3_next": [1], "qwen3_5_text": [1], "qwen3_5_moe_text": [1], "lfm2": [1]}  # the layers with attention
GATED = ("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text")  # a sigmoid gate multiplies every output
NORMED = {"bitnet": "self_attn.attn_sub_norm"}  # a norm over all heads
# These do not call the attention interface of transformers. Their values are in the cache, or in a projection.
CACHED = ("falcon", "bloom", "mpt", "gpt_neo", "gptj", "codegen", "xglm")
PROJECTED = {"deberta-v2": "value_proj"}
VARIANTS = [
    ("llama", dict(head_dim=16), 64),
    ("qwen3", dict(head_dim=16), 64),
    ("gemma3", dict(head_dim=4), 16),
    ("gpt_oss", dict(head_dim=16, num_key_value_heads=1), 64),
    ("qwen3_5_text", dict(head_dim=16), 64),
    ("deepseek_v3", dict(v_head_dim=4), 16),
    ("t5", dict(d_kv=16), 64),
    ("falcon", dict(new_decoder_architecture=True, num_kv_heads=2), WIDTH),
    ("falcon", dict(multi_query=False), WIDTH),
    ("gpt_bigcode", dict(multi_query=False), WIDTH),
]

Attention = tuple[Tensor, Tensor]
"""Weights `[batch, heads, seq, seq]` and values `[batch, key-value heads, seq, d_head]`."""


@pytest.fixture
def attended(monkeypatch) -> Callable[[nn.Module], list[Attention]]:
    """Return a function that makes a model's eager attention record its weights and values in every call."""
    calls: list[Attention] = []

    def record(original):
        def eager(module, query, key, value, *args, **kwargs):
            output, weights = original(module, query, key, value, *args, **kwargs)
            calls.append((weights, value))
            return output, weights

        return eager

    def watch(model: nn.Module) -> list[Attention]:
        for file in {sys.modules[type(module).__module__] for module in model.modules()}:
            if hasattr(file, "eager_attention_forward"):
                monkeypatch.setattr(file, "eager_attention_forward", record(file.eager_attention_forward))
        model.set_attn_implementation("eager")
        return calls

    return watch


def _run(name: str, model: nn.Module, watch) -> list[tuple[Tensor, Attention]]:
    """Return the input of each host, and the attention weights and values it should consist of."""
    hosts = resolve(model, "attention_heads", HYBRID.get(name))
    calls = watch(model)
    entered: list[tuple[Tensor, Attention | None]] = []
    values: list[Tensor] = []
    for host in hosts:
        host.module.register_forward_pre_hook(
            lambda module, args: entered.append((args[0].clone(), calls[-1] if calls else None))
        )
    for path, module in model.named_modules():
        if name in PROJECTED and path.endswith(PROJECTED[name]):
            module.register_forward_hook(
                lambda module, args, output: values.append(output.unflatten(-1, (HEADS, -1)).transpose(1, 2))
            )
    cache = dict(use_cache=True) if name in CACHED else {}
    with torch.no_grad():
        output = model(**example_inputs(name), output_attentions=True, **cache)
    assert len(entered) == len(hosts)
    if name in CACHED:
        values = [layer.values for layer in output.past_key_values.layers]
    if name in CACHED or name in PROJECTED:
        assert not calls
        return [(x, pair) for (x, _), pair in zip(entered, zip(output.attentions, values, strict=True), strict=True)]
    return entered


def _heads_side_by_side(weights: Tensor, values: Tensor) -> Tensor:
    """Return `[batch, seq, heads · d_head]`: the weighted sum of values of each query head."""
    group = weights.shape[1] // values.shape[1]
    return torch.cat([weights[:, head] @ values[:, head // group] for head in range(weights.shape[1])], dim=-1)


def _assert_heads(name: str, model: nn.Module, watch) -> None:
    hosts = resolve(model, "attention_heads", HYBRID.get(name))
    for host, (x, (weights, values)) in zip(hosts, _run(name, model, watch), strict=True):
        assert (host.heads, host.width) == (weights.shape[1], weights.shape[1] * values.shape[-1])
        assert x.shape[-1] == host.width
        expected = _heads_side_by_side(weights, values)
        assert expected.std() > 0.01, "heads with output zero make the test vacuous"
        if name in GATED:
            gate = x / expected
            assert gate.min() >= 0 and gate.max() <= 1
            continue
        if name in NORMED:
            expected = resolve(model)[host.layer].module.get_submodule(NORMED[name])(expected)
        torch.testing.assert_close(x, expected.view_as(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_the_input_of_the_host_is_the_heads_of_every_architecture(name, attended):
    model = ALL[name]()
    assert {host.heads for host in resolve(model, "attention_heads", HYBRID.get(name))} == {HEADS}
    _assert_heads(name, model, attended)


@pytest.mark.parametrize(("name", "overrides", "width"), VARIANTS)
def test_the_width_is_heads_times_d_head_in_config_variants(name, overrides, width, attended):
    model = ALL[name](**overrides)
    assert {host.width for host in resolve(model, "attention_heads", HYBRID.get(name))} == {width}
    _assert_heads(name, model, attended)


def test_the_check_detects_a_wrong_order_of_heads(attended):
    """Values of grouped-query attention with the wrong mapping (head modulo groups) must not pass."""
    x, (weights, values) = _run("llama", ALL["llama"](), attended)[0]
    wrong = torch.cat([weights[:, head] @ values[:, head % values.shape[1]] for head in range(HEADS)], dim=-1)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(x, wrong)


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
@pytest.mark.parametrize(("name", "target"), [("qwen3", "o_proj"), ("gpt2", "c_proj"), ("bert", "dense")])
def test_a_projection_wrapped_by_lora_is_found(name, target):
    plain = resolve(ALL[name](), "attention_heads")
    model = get_peft_model(ALL[name](), LoraConfig(target_modules=[target]))
    hosts = resolve(model, "attention_heads")
    assert [(host.name, host.width, host.heads) for host in hosts] == [(h.name, h.width, h.heads) for h in plain]
    entered = []
    for host in hosts:
        assert hasattr(host.module, "lora_A")
        host.module.register_forward_pre_hook(lambda module, args: entered.append(args[0].shape[-1]))
    model(**example_inputs(name))
    assert entered == [WIDTH] * len(hosts)


def test_the_width_of_a_quantised_projection_is_its_in_features():
    class Quantised(nn.Module):
        in_features, out_features = 64, WIDTH

    model = ALL["qwen3"](head_dim=16)
    for layer in model.model.layers:
        layer.self_attn.o_proj = Quantised()
    assert [(host.width, host.heads) for host in resolve(model, "attention_heads")] == [(64, HEADS)] * 3


@pytest.mark.parametrize(
    ("name", "mixer"),
    [("qwen3_next", r"linear_attn \(Qwen3NextGatedDeltaNet\)"), ("lfm2", r"conv \(Lfm2ShortConv\)")],
)
def test_a_block_without_heads_is_an_error_that_names_the_layers_with_heads(name, mixer):
    message = rf"Block 'layers.0' .* mixes tokens by {mixer}\. Steer .* layers=\[1\], or use site='post_attention'"
    with pytest.raises(ActshiftError, match=message):
        resolve(ALL[name](), "attention_heads")


def test_an_unknown_architecture_is_rejected():
    model = transformers.MambaModel(transformers.MambaConfig(hidden_size=16, num_hidden_layers=2, vocab_size=8))
    message = r"Site 'attention_heads' is not known for model_type 'mamba' .*post_block.*llama"
    with pytest.raises(ActshiftError, match=message):
        resolve(model, "attention_heads")


@pytest.mark.parametrize("heads", [5, 0])
def test_a_width_that_is_no_multiple_of_the_heads_is_rejected(heads):
    model = ALL["llama"]()
    model.config.num_attention_heads = heads
    with pytest.raises(ActshiftError, match=f"o_proj' .* 32 wide and config.num_attention_heads is {heads}"):
        resolve(model, "attention_heads")
