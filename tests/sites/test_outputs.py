"""MLP output maps: they, and nothing else, write the MLP branch, for every architecture."""

from __future__ import annotations

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from actshift.errors import ActshiftError
from actshift.sites import OutputMap, mlp_outputs, resolve
from tests.zoo import ARCHITECTURES, LAYERS, MORE, WIDTH, example_inputs

ALL = {**ARCHITECTURES, **MORE}
# A norm or a scale ends these branches. The maps write its input.
NORM_AT_END = ("gemma2", "gemma3", "olmo2", "olmo3", "flex_olmo", "exaone4", "glm4", "dinov2")
EXPERTS = {  # output maps of the last block, which has experts
    "mixtral qwen3_moe phimoe olmoe gpt_oss flex_olmo": ["mlp.experts.down_proj"],
    "qwen2_moe qwen3_next qwen3_5_moe_text": ["mlp.experts.down_proj", "mlp.shared_expert.down_proj"],
    "deepseek_v3": ["mlp.experts.down_proj", "mlp.shared_experts.down_proj"],
    "llama4_text": ["feed_forward.experts.down_proj", "feed_forward.shared_expert.down_proj"],
}
VARIANTS = [
    ("dinov2", dict(use_swiglu_ffn=True)),
    ("t5", dict(feed_forward_proj="gated-gelu")),
    ("falcon", dict(new_decoder_architecture=True, num_kv_heads=2)),
    ("llama4_text", dict(moe_layers=[1])),
    ("qwen3_moe", dict(mlp_only_layers=[0])),
]


def _weight(output: OutputMap) -> nn.Parameter:
    return output.module.weight if output.parameter is None else getattr(output.module, output.parameter)


def _bias(output: OutputMap) -> Tensor | None:
    name = "bias" if output.parameter is None else f"{output.parameter}_bias"
    return getattr(output.module, name, None)


def _stream_axis(output: OutputMap) -> int:
    if output.parameter is None:
        return 1 if isinstance(output.module, Conv1D) else 0
    return list(_weight(output).shape).index(output.width)


def _written(name: str, model: nn.Module, layer: int, raw: bool = True) -> Tensor:
    """Return the output of one layer's MLP branch, before the norm that may end it if `raw`."""
    host = resolve(model, "post_mlp", [layer])[0]
    outputs = []

    def keep(module, args, output):
        hidden = args[0] if raw and name in NORM_AT_END else output
        outputs.append((hidden[0] if isinstance(hidden, tuple) else hidden).clone())

    hook = host.module.register_forward_hook(keep)
    with torch.no_grad():
        model(**example_inputs(name))
    hook.remove()
    return outputs[0]


def _assert_maps(name: str, model: nn.Module) -> None:
    outputs = mlp_outputs(model)
    draw = torch.Generator().manual_seed(1)
    for output in outputs:
        weight, axis = _weight(output), _stream_axis(output)
        before, saved = _written(name, model, output.layer), weight.data.clone()
        direction = torch.randn(WIDTH, generator=draw)
        with torch.no_grad():  # change the weight so that it writes along one direction
            rows = torch.randn(weight.select(axis, 0).shape, generator=draw)
            shape = [-1 if a == axis else 1 for a in range(weight.ndim)]
            weight += direction.view(shape) * rows.unsqueeze(axis)
        change = _written(name, model, output.layer) - before
        weight.data = saved
        along = change @ direction / (direction @ direction)
        assert along.abs().max() > 0.1, f"{output.name} writes nothing"
        torch.testing.assert_close(change, along.unsqueeze(-1) * direction, rtol=1e-4, atol=1e-4)
    for output in outputs:
        nn.init.zeros_(_weight(output))
        if (bias := _bias(output)) is not None:
            nn.init.zeros_(bias)
    for layer in {output.layer for output in outputs}:
        assert not _written(name, model, layer, raw=False).any(), f"layer {layer} has another output map"


@pytest.mark.parametrize("name", ALL)
def test_only_the_output_maps_write_the_branch(name):
    _assert_maps(name, ALL[name]())


@pytest.mark.parametrize(("name", "overrides"), VARIANTS)
def test_only_the_output_maps_write_the_branch_in_config_variants(name, overrides):
    _assert_maps(name, ALL[name](**overrides))


@pytest.mark.parametrize("name", ALL)
def test_names_modules_and_widths_of_the_maps(name):
    model = ALL[name]()
    blocks = resolve(model)
    outputs = mlp_outputs(model)
    assert {output.layer for output in outputs} == {block.layer for block in blocks}
    for output in outputs:
        path = output.name if output.parameter is None else output.name.removesuffix(f".{output.parameter}")
        assert model.get_submodule(path) is output.module
        assert output.width == WIDTH == _weight(output).shape[_stream_axis(output)]
        assert output.name.startswith(blocks[output.layer].name + ".")
    last = [output.name.removeprefix(blocks[-1].name + ".") for output in outputs if output.layer == len(blocks) - 1]
    experts = [names for models, names in EXPERTS.items() if name in models.split()]
    assert [last] == experts if experts else len(last) == 1


def test_layers_are_selected_as_in_resolve():
    model = ALL["qwen2_moe"]()
    assert [output.layer for output in mlp_outputs(model, [-1, 0])] == [2, 2, 0, 0]
    with pytest.raises(ActshiftError, match="layer 3 is out of range"):
        mlp_outputs(model, [3])


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "qwen2_moe", "mixtral", "gpt_oss", "llama4_text"])
def test_lora_on_the_names_writes_to_the_branch(name):
    """LoRA changes the branch within col(B), or within col(Aᵀ) in Llama-4, whose stacks PEFT reads transposed."""
    plain = mlp_outputs(ALL[name]())
    modules = [output.name for output in plain if output.parameter is None]
    parameters = [output.name for output in plain if output.parameter is not None]
    both = [path.replace("down_proj", "gate_up_proj") for path in parameters]  # nests two of PEFT's wrappers
    config = LoraConfig(r=2, target_modules=modules or None, target_parameters=parameters + both or None)
    model = get_peft_model(ALL[name](), config).eval()
    outputs = mlp_outputs(model)
    assert [(output.name, output.parameter) for output in outputs] == [(o.name, o.parameter) for o in plain]
    base = model.get_base_model()
    for output in outputs:
        layer = output.module
        while output.parameter is not None and layer.parameter_name != output.parameter:
            layer = layer.base_layer
        before = _written(name, base, output.layer)
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        nn.init.normal_(b)
        change = _written(name, base, output.layer) - before
        basis, _ = torch.linalg.qr((b if b.shape[0] == WIDTH else a.T).detach())
        nn.init.zeros_(b)
        assert change.abs().max() > 0.01
        torch.testing.assert_close(change @ basis @ basis.T, change, rtol=1e-4, atol=1e-4)


def test_each_half_of_a_composite_has_its_own_maps():
    vision, text = ALL["vit"]().config, ALL["gpt2"](n_embd=16).config
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(vision, text)
    outputs = mlp_outputs(transformers.VisionEncoderDecoderModel(config), [0, LAYERS])
    assert [(output.name, output.width) for output in outputs] == [
        ("encoder.layers.0.mlp.fc2", WIDTH),
        ("decoder.transformer.h.0.mlp.c_proj", 16),
    ]


def test_an_unknown_architecture_is_rejected():
    model = transformers.MambaModel(transformers.MambaConfig(hidden_size=16, num_hidden_layers=2, vocab_size=8))
    with pytest.raises(ActshiftError, match=r"MLP output map is not known for model_type 'mamba' .* one of: .*llama"):
        mlp_outputs(model)


def test_a_model_without_the_expected_module_is_rejected():
    model = ALL["llama"]()
    model.config.model_type = "gpt2"
    with pytest.raises(ActshiftError, match=r"should be 'mlp.c_proj', which block 'model.layers.0' .* lacks"):
        mlp_outputs(model)
