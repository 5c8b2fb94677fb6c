"""The linear maps of a model's blocks: what LoRA can be put on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from transformers.pytorch_utils import Conv1D

from actshift.sites import find_blocks
from actshift.sites.blocks import unwrap
from actshift.sites.resolve import block_indices


@dataclass(frozen=True)
class LinearMap:
    """A weight `[outputs, inputs]` of block `layer`: `part` is its name in the block, `name` that in the model.

    `module` is the map, or the LoRA layer round it.
    """

    layer: int
    part: str
    name: str
    module: nn.Module
    inputs: int
    outputs: int


def linear_maps(model: nn.Module, layers: Sequence[int] | None = None, blocks: str | None = None) -> list[LinearMap]:
    """Return the linear maps of the chosen blocks, in the order of the model: PEFT's "all-linear".

    Stacked experts are none of them: their weights are no modules. Raises what `resolve` raises.

    >>> from actshift.demo import load_base
    >>> [linear.part for linear in linear_maps(load_base()[0], layers=[0])][:2]
    ['self_attn.q_proj', 'self_attn.k_proj']
    """
    model = unwrap(model)
    found = find_blocks(model, blocks)
    return [
        linear
        for layer in block_indices(layers, len(found), type(model).__name__)
        for linear in _of_block(layer, *found[layer])
    ]


def _of_block(layer: int, name: str, block: nn.Module) -> list[LinearMap]:
    linears = []
    for part, module in block.named_modules():
        base = getattr(module, "base_layer", module)  # a LoRA layer answers for the map it is wrapped round
        if not isinstance(base, nn.Linear | Conv1D) or _is_adapters(part):
            continue
        # Not by the weight's shape, which a quantised one packs.
        inputs, outputs = (base.in_features, base.out_features) if isinstance(base, nn.Linear) else (base.nx, base.nf)
        linears.append(LinearMap(layer, part, f"{name}.{part}", module, inputs, outputs))
    return linears


def _is_adapters(part: str) -> bool:
    return part.endswith(".base_layer") or any(word.startswith(("lora_", "actshift")) for word in part.split("."))
