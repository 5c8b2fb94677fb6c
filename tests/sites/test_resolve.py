"""`resolve`: sites and layers to modules, and its errors."""

from __future__ import annotations

import subprocess
import sys

import pytest
import transformers
from peft import LoraConfig, get_peft_model
from torch import nn

from actshift.errors import ActshiftError
from actshift.sites import SITES, Host, resolve
from tests.zoo import ARCHITECTURES, LAYERS, WIDTH


@pytest.fixture(scope="module")
def llama():
    return ARCHITECTURES["llama"]()


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_names_modules_and_widths_of_the_hosts(name, site):
    model = ARCHITECTURES[name]()
    hosts = resolve(model, site)
    assert [host.layer for host in hosts] == list(range(4 if name == "t5" else LAYERS))
    assert {(host.site, host.width) for host in hosts} == {(site, WIDTH)}
    assert all(model.get_submodule(host.name) is host.module for host in hosts)


def test_negative_layers_count_from_the_end_and_the_order_is_kept(llama):
    assert [host.name for host in resolve(llama, "post_mlp", [-1, 0])] == [
        "model.layers.2.mlp",
        "model.layers.0.mlp",
    ]
    assert resolve(llama, layers=range(1, 3)) == resolve(llama)[1:]


def test_names_are_relative_to_the_model_inside_a_wrapper(llama):
    plain = resolve(llama, "post_attention")
    wrapped = get_peft_model(ARCHITECTURES["llama"](), LoraConfig(target_modules=["q_proj"]))
    hosts = resolve(wrapped, "post_attention")
    assert [host.name for host in hosts] == [host.name for host in plain]
    assert all(wrapped.get_base_model().get_submodule(host.name) is host.module for host in hosts)


def test_each_half_of_a_composite_has_its_own_width_and_branches():
    vision, text = ARCHITECTURES["vit"]().config, ARCHITECTURES["gpt2"](n_embd=16).config
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(vision, text)
    hosts = resolve(transformers.VisionEncoderDecoderModel(config), "post_attention", [0, -1])
    assert [(host.name, host.width) for host in hosts] == [
        ("encoder.layers.0.attention", WIDTH),
        ("decoder.transformer.h.2.attn", 16),
    ]


def test_hybrid_blocks_use_the_attention_branch_they_have():
    kinds = ["linear_attention", "full_attention"]
    size = dict(vocab_size=8, hidden_size=16, intermediate_size=8, num_attention_heads=2, num_key_value_heads=2)
    config = transformers.AutoConfig.for_model("qwen3_5_text", num_hidden_layers=2, layer_types=kinds, **size)
    hosts = resolve(transformers.AutoModel.from_config(config), "post_attention")
    assert [host.name for host in hosts] == ["layers.0.linear_attn", "layers.1.self_attn"]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([3], r"layer 3 is out of range: LlamaForCausalLM has 3 blocks, 0 to 2 \(or -3 to -1\)\."),
        ([-4], r"layer -4 is out of range"),
        ([0, 1, -3], r"layer -3 is named twice in \[0, 1, -3\]"),
        ([], r"layers=\[\] is not a list of block indices such as \[0, -1\]"),
        ([True], "is not a list of block indices"),
        (["0"], "is not a list of block indices"),
        (2, "layers=2 is not a list of block indices"),
        ("12", "is not a list of block indices"),
    ],
)
def test_invalid_layers_are_rejected(llama, layers, message):
    with pytest.raises(ActshiftError, match=message):
        resolve(llama, layers=layers)


@pytest.mark.parametrize(
    ("site", "message"),
    [
        ("post_atention", "did you mean 'post_attention'"),
        ("post-block", "did you mean 'post_block'"),
        ("everywhere", "Unknown site 'everywhere'. Use one of post_block, post_mlp, post_attention"),
    ],
)
def test_an_unknown_site_is_rejected_with_the_nearest_name(llama, site, message):
    with pytest.raises(ActshiftError, match=message):
        resolve(llama, site)


def test_an_unknown_architecture_supports_only_post_block():
    model = transformers.MambaModel(transformers.MambaConfig(hidden_size=16, num_hidden_layers=2, vocab_size=8))
    assert [host.name for host in resolve(model)] == ["layers.0", "layers.1"]
    with pytest.raises(ActshiftError, match=r"Site 'post_mlp' is not known for model_type 'mamba' .*post_block.*llama"):
        resolve(model, "post_mlp")


def test_a_model_without_the_expected_module_is_rejected(llama):
    model = ARCHITECTURES["llama"]()
    model.config.model_type = "gpt_neox"
    message = r"should be 'attention', which block 'model.layers.0' \(LlamaDecoderLayer\) lacks"
    with pytest.raises(ActshiftError, match=message):
        resolve(model, "post_attention")


def test_a_model_without_a_known_width_is_rejected():
    with pytest.raises(ActshiftError, match=r"width of block '0\.0' is not known: the model has no config"):
        resolve(nn.Sequential(nn.ModuleList([nn.Linear(2, 2)])))


@pytest.mark.slow
def test_importing_sites_does_not_import_transformers():
    code = "import sys, actshift.sites; sys.exit(any(name in sys.modules for name in ('transformers', 'peft')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_fields_of_a_host(llama):
    host = resolve(llama, "post_mlp", [1])[0]
    assert host == Host("post_mlp", 1, "model.layers.1.mlp", llama.model.layers[1].mlp, WIDTH)
