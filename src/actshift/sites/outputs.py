"""The MLP output maps of a model: the weights that write each block's MLP branch into the residual stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from actshift.errors import ActshiftError
from actshift.sites.blocks import find_blocks, unwrap
from actshift.sites.resolve import block_indices, config_around, find_all, row_of, width_of


@dataclass(frozen=True)
class OutputMap:
    """One weight that writes the MLP branch of a block: `down_proj`, `fc2`, `c_proj`, or those of the experts.

    `name` is its qualified name in the model without PEFT, as PEFT takes it: in `target_modules` where `parameter` is
    None, and in `target_parameters` where the weight is a stack `[experts, ...]` in one parameter, called
    `parameter`, of a module of experts. `module` is what the model has there now: the map or the module of
    experts, or the LoRA layer round it (round a parameter, the outermost of PEFT's wrappers). `width` is the
    d_model that the map writes to.

    The weight is `[width, d_ff]` in a Linear, `[d_ff, width]` in GPT-2's Conv1D, and `[experts, width, d_ff]` in
    most stacks, but `[experts, d_ff, width]` in those of GPT-OSS and Llama-4. A norm or a scale may stand between the
    map and the skip (Gemma-2 and -3, OLMo-2, GLM-4, DINOv2).
    """

    layer: int
    name: str
    module: nn.Module
    parameter: str | None
    width: int


def mlp_outputs(model: nn.Module, layers: Sequence[int] | None = None, blocks: str | None = None) -> list[OutputMap]:
    """Return the MLP output maps of `model`: in the order of `layers`, and several for a block with several.

    A block of a mixture of experts has the stack of its experts' maps, and that of the shared expert where there
    is one. `layers` and `blocks` are those of `resolve`.

    Raises:
        ActshiftError: an architecture without a row in `BRANCHES`, a block that lacks what its row says, and whatever
            `resolve` raises.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> size = dict(vocab_size=8, hidden_size=8, intermediate_size=8, num_attention_heads=2)
        >>> model = LlamaForCausalLM(LlamaConfig(num_hidden_layers=3, **size))
        >>> [(output.layer, output.name) for output in mlp_outputs(model, layers=[0, -1])]
        [(0, 'model.layers.0.mlp.down_proj'), (2, 'model.layers.2.mlp.down_proj')]
    """
    model = unwrap(model)
    found = find_blocks(model, blocks)
    return [
        output
        for layer in block_indices(layers, len(found), type(model).__name__)
        for output in _of_block(model, layer, *found[layer])
    ]


def mlp_entry(model: nn.Module, layer: int, blocks: str | None = None) -> nn.Module:
    """Return the module whose input is that of a block's MLP: the MLP itself where it is one module.

    Raises what `mlp_outputs` raises.

    >>> from actshift.demo import load_base
    >>> type(mlp_entry(load_base()[0], layer=0)).__name__
    'LlamaMLP'
    """
    model = unwrap(model)
    name, block = find_blocks(model, blocks)[layer]
    row = row_of(config_around(model, name), block, "the MLP's input", "leave out what needs it")
    named = (row.entry,) if isinstance(row.entry, str) else row.entry
    outputs = (row.outputs,) if isinstance(row.outputs, str) else row.outputs
    for path in named or tuple(output.rpartition(".")[0] for output in outputs):
        if found := find_all(block, path):
            return found[0].module
    raise ActshiftError(f"the MLP of block {name!r} ({type(block).__name__}) is not where the table says.")


def _of_block(model: nn.Module, layer: int, name: str, block: nn.Module) -> list[OutputMap]:
    config = config_around(model, name)
    row = row_of(config, block, "the MLP output map", "leave out what needs it")
    if not (found := find_all(block, row.outputs)):
        raise ActshiftError(
            f"the MLP output map of model_type {config.model_type!r} should be {row.outputs!r}, which block {name!r} "
            f"({type(block).__name__}) lacks; use a transformers version actshift is tested with."
        )
    width = width_of(config, name)
    return [OutputMap(layer, name + suffix, module, parameter, width) for suffix, module, parameter in found]
