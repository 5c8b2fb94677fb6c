"""Resolving: sites and layers to modules, and what is said where that cannot be."""

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
def test_every_host_is_where_it_says(name, site):
    model = ARCHITECTURES[name]()
    hosts = resolve(model, site)
    assert [host.layer for host in hosts] == list(range(4 if name == "t5" else LAYERS))
    assert {(host.site, host.width) for host in hosts} == {(site, WIDTH)}
    assert all(model.get_submodule(host.name) is host.module for host in hosts)


def test_layers_count_from_either_end_and_keep_their_order(llama):
    assert [host.name for host in resolve(llama, "post_mlp", [-1, 0])] == [
        "model.layers.2.mlp",
        "model.layers.0.mlp",
    ]
    assert resolve(llama, layers=range(1, 3)) == resolve(llama)[1:]


def test_hosts_in_a_wrapped_model_are_named_from_the_model_inside(llama):
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


def test_hybrid_blocks_take_the_branch_they_have():
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
def test_layers_that_do_not_fit(llama, layers, message):
    with pytest.raises(ActshiftError, match=message):
        resolve(llama, layers=layers)


@pytest.mark.parametrize(
    ("site", "message"),
    [
        ("post_atention", "did you mean 'post_attention'"),
        ("post-block", "did you mean 'post_block'"),
        ("everywhere", "no site 'everywhere'; the sites are post_block, post_mlp, post_attention"),
    ],
)
def test_a_misspelt_site(llama, site, message):
    with pytest.raises(ActshiftError, match=message):
        resolve(llama, site)


def test_an_architecture_without_a_row_is_named_and_post_block_still_works():
    model = transformers.MambaModel(transformers.MambaConfig(hidden_size=16, num_hidden_layers=2, vocab_size=8))
    assert [host.name for host in resolve(model)] == ["layers.0", "layers.1"]
    with pytest.raises(ActshiftError, match=r"post_mlp is not known for model_type 'mamba' .*post_block.*llama"):
        resolve(model, "post_mlp")


def test_a_row_that_this_model_does_not_match(llama):
    model = ARCHITECTURES["llama"]()
    model.config.model_type = "gpt_neox"
    with pytest.raises(ActshiftError, match="should be 'attention', which this LlamaDecoderLayer lacks"):
        resolve(model, "post_attention")


def test_an_unknown_width():
    with pytest.raises(ActshiftError, match=r"width of block '0\.0' is not known: the model has no config"):
        resolve(nn.Sequential(nn.ModuleList([nn.Linear(2, 2)])))


def test_importing_sites_does_not_import_transformers():
    code = "import sys, actshift.sites; sys.exit(any(name in sys.modules for name in ('transformers', 'peft')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_host_says_where_it_is(llama):
    host = resolve(llama, "post_mlp", [1])[0]
    assert host == Host("post_mlp", 1, "model.layers.1.mlp", llama.model.layers[1].mlp, WIDTH)
