"""The output maps of a model's MLPs: the weights that write each MLP branch into the residual stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from actshift.sites.blocks import find_blocks, unwrap
from actshift.sites.resolve import block_indices, config_around, required_parts, width_of

FIX = "Leave out the feature that needs it"


@dataclass(frozen=True)
class OutputMap:
    """One weight that writes a block's MLP branch: `down_proj`, `fc2`, `c_proj`, or the stacked weights of experts.

    The weight is `[width, d_ff]` in a Linear and `[d_ff, width]` in GPT-2's Conv1D. Stacks are `[experts, width, d_ff]`
    in most models, and `[experts, d_ff, width]` in GPT-OSS and Llama-4. A norm or a scale may follow the map before
    the residual stream (Gemma-2 and -3, OLMo-2, GLM-4, DINOv2).

    Attributes:
        layer: the index of the block.
        name: the qualified name in the model without PEFT, as PEFT's `target_modules` (or `target_parameters`) take it.
        module: the map, the module of experts, or the LoRA layer around it (the outermost of PEFT's wrappers).
        parameter: the attribute of the stacked weight in a module of experts, or None if the weight is `module.weight`.
        width: d_model, the width that the map writes to.
    """

    layer: int
    name: str
    module: nn.Module
    parameter: str | None
    width: int


def mlp_outputs(model: nn.Module, layers: Sequence[int] | None = None, blocks: str | None = None) -> list[OutputMap]:
    """Return the MLP output maps of the blocks, in the order of `layers`.

    A mixture-of-experts block has several: the stack of its experts, and the shared expert if it has one. Arguments
    and errors are as in `resolve`.

    >>> from actshift.demo import load_base
    >>> [(output.layer, output.name) for output in mlp_outputs(load_base()[0], layers=[0])]
    [(0, 'model.layers.0.mlp.down_proj')]
    """
    model = unwrap(model)
    all_blocks = find_blocks(model, blocks)
    maps: list[OutputMap] = []
    for layer in block_indices(layers, len(all_blocks), type(model).__name__):
        name, block = all_blocks[layer]
        config = config_around(model, name)
        parts = required_parts(config, name, block, "outputs", "The MLP output map", FIX)
        width = width_of(config, name)
        maps += [OutputMap(layer, name + suffix, module, parameter, width) for suffix, module, parameter in parts]
    return maps


def mlp_entry(model: nn.Module, layer: int, blocks: str | None = None) -> nn.Module:
    """Return the module whose input is the input of a block's MLP: the MLP itself if it is one module.

    Errors are as in `mlp_outputs`.

    >>> from actshift.demo import load_base
    >>> type(mlp_entry(load_base()[0], layer=0)).__name__
    'LlamaMLP'
    """
    model = unwrap(model)
    name, block = find_blocks(model, blocks)[layer]
    return required_parts(config_around(model, name), name, block, "entries", "The MLP's input", FIX)[0].module
