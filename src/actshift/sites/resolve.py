"""Resolve a site and layers to the modules of a model, and find the output maps of its MLPs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from actshift.errors import ActshiftError, check_choice, show
from actshift.sites.architectures import BRANCHES, SITES, TOKEN_AXES, UNHOOKED, Branches, Names, as_tuple
from actshift.sites.blocks import NamedModule, find_blocks, text_config, unwrap

_FIX = "Leave out the feature that needs it"


@dataclass(frozen=True)
class Host:
    """A module at which one block is steered.

    Its output is steered: hidden states `[batch, seq, width]`, or a tuple that starts with them. OPT's `post_mlp` is
    flat, `[batch * seq, width]`. If a block has several residual streams, as in Gemma-3n and DeepSeek-V4, every stream
    is steered. At `attention_heads` its input is steered instead, the concatenated vectors of the
    heads, `[batch, seq, width]` with width = heads · d_head. Elsewhere `heads` is None.

    Attributes:
        layer: the index of the block from 0 in forward order (the encoder's blocks, then the decoder's).
        name: the qualified name of the module in the model without its PEFT wrapper.
        axes: the axes of batch and sequence in the hidden states; None if they are not known before a forward pass.
    """

    site: str
    layer: int
    name: str
    module: nn.Module
    width: int
    heads: int | None = None
    axes: tuple[int, int] | None = (0, 1)

    @property
    def at_input(self) -> bool:
        """Whether the module's input is steered instead of its output."""
        return SITES[self.site].at_heads


def resolve(
    model: nn.Module, site: str = "post_block", layers: Sequence[int] | None = None, blocks: str | None = None
) -> list[Host]:
    """Return the modules that a steering site refers to, one per layer, in the order of `layers`.

    Args:
        model: any model for `post_block`; for the other sites, one whose `model_type` is in `BRANCHES`.
        site: a name in `SITES`.
        layers: block indices from 0, or from the end if negative. None means every block.
        blocks: the qualified name of the list of blocks, for models in which `find_blocks` is ambiguous.

    Raises:
        ActshiftError: an unknown site, a layer that is repeated or out of range, or a model whose blocks, branches,
            heads or width cannot be determined.

    Source: docs/method.md#sites.

    >>> from actshift.demo import load_base
    >>> [(host.layer, host.name, host.width) for host in resolve(load_base()[0], "post_mlp", layers=[0, -1])]
    [(0, 'model.layers.0.mlp', 128), (5, 'model.layers.5.mlp', 128)]
    """
    check_site(site)
    model = unwrap(model)
    all_blocks = find_blocks(model, blocks)
    indices = block_indices(layers, len(all_blocks), type(model).__name__)
    return [_resolve_block(model, site, layer, all_blocks) for layer in indices]


def check_site(site: str) -> None:
    """Raise ActshiftError unless `site` is a name in `SITES`."""
    check_choice("site", site, list(SITES))


def block_indices(layers: Any, count: int, model_class: str) -> list[int]:
    """Return `layers` as indices from 0 into `count` blocks of a model of this class; None means all of them.

    Raises:
        ActshiftError: `layers` is not a sequence of ints, or an index is out of range or repeated.

    >>> block_indices([0, -1], 6, "LlamaForCausalLM")
    [0, 5]
    """
    if layers is None:
        return list(range(count))
    allowed = f"{model_class} has {count} block{'s' if count > 1 else ''}, 0 to {count - 1} (or {-count} to -1)"
    if not isinstance(layers, Sequence) or any(type(layer) is not int for layer in layers) or not layers:
        raise ActshiftError(f"layers={show(layers)} is not a list of block indices such as [0, -1]: {allowed}.")
    indices: list[int] = []
    for layer in layers:
        if not -count <= layer < count:
            raise ActshiftError(f"layer {layer} is out of range: {allowed}.")
        if layer % count in indices:
            raise ActshiftError(f"layer {layer} is named twice in {list(layers)}: {allowed}. Name each block once.")
        indices.append(layer % count)
    return indices


def hidden_of(output: Any) -> Any:
    """Return the hidden states in a module's output, which is a tensor, or a tuple or list that starts with it."""
    is_named = hasattr(output, "_fields")  # Reformer's named tuple starts with the output of its attention
    return output[0] if isinstance(output, tuple | list) and output and not is_named else output


def with_hidden(output: Any, hidden: Any) -> Any:
    """Return a module's output with its hidden states replaced, as a tensor, tuple or list like the original."""
    if isinstance(output, list):  # the first GPT
        return [hidden, *output[1:]]
    return (hidden, *output[1:]) if isinstance(output, tuple) else hidden


class BlockPart(NamedTuple):
    """A module of a block, or one stacked parameter of it, with the suffix to append to the block's name."""

    suffix: str
    module: nn.Module
    parameter: str | None = None


def find_parts(block: nn.Module, names: Names) -> list[BlockPart]:
    """Return the parts of a block with these names, in the order of `names`, leaving out those that do not exist."""
    return [part for name in as_tuple(names) if (part := _find_part(block, name))]


def _find_part(block: nn.Module, name: str) -> BlockPart | None:
    suffix, module, keys = "", block, name.split(".")
    for position, key in enumerate(keys):
        inner = _unwrap_stacked(module, key)
        children = dict(inner.named_children())
        key = list(children)[int(key)] if key.startswith("-") else key
        suffix = f"{suffix}.{key}"
        if key in children:
            module = children[key]
        elif position == len(keys) - 1 and isinstance(getattr(inner, key, None), Tensor):
            return BlockPart(suffix, module, key)
        else:
            return None
    return BlockPart(suffix, module)


def _unwrap_stacked(module: nn.Module, key: str) -> nn.Module:
    """Return the module with an attribute `key` inside PEFT's wrappers for stacked parameters."""
    while not hasattr(module, key) and isinstance(inner := getattr(module, "base_layer", None), nn.Module):
        module = inner
    return module


def config_around(model: nn.Module, block: str) -> Any:
    """Return the config of the nearest module around a block, or None. Each half of a composite model has its own."""
    while block:
        block = block.rpartition(".")[0]
        if (config := text_config(model.get_submodule(block))) is not None:
            return config
    return None


def width_of(config: Any, block: str) -> int:
    """Return the width d of the residual stream. Raise ActshiftError if the config does not contain it."""
    width = getattr(config, "hidden_size", None)  # transformers maps n_embd and d_model to this name
    if not isinstance(width, int):
        problem = "the model has no config" if config is None else f"{type(config).__name__} has no hidden_size"
        raise ActshiftError(f"The width of block {block!r} is not known: {problem}. Set config.hidden_size.")
    return width


def required_parts(config: Any, name: str, block: nn.Module, field: str, subject: str, fix: str) -> list[BlockPart]:
    """Return the parts of block `name` that a field of `Branches` lists for its architecture.

    Raises:
        ActshiftError: the architecture is not in `BRANCHES`, or the block has none of the parts.
    """
    model_type = getattr(config, "model_type", None)
    if model_type not in BRANCHES:
        problem = f"{subject} is not known for model_type {model_type!r} ({type(block).__name__})"
        raise ActshiftError(f"{problem}. {fix}, or use one of: {', '.join(sorted(BRANCHES))}.")
    names: Names = getattr(BRANCHES[model_type], field)
    if parts := find_parts(block, names):
        return parts
    raise ActshiftError(
        f"{subject} of model_type {model_type!r} should be {names!r}, which block {name!r} ({type(block).__name__}) "
        f"lacks. {fix}, or use a transformers version that actshift is tested with."
    )


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
        parts = required_parts(config, name, block, "outputs", "The MLP output map", _FIX)
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
    return required_parts(config_around(model, name), name, block, "entries", "The MLP's input", _FIX)[0].module


def _resolve_block(model: nn.Module, site: str, layer: int, blocks: Sequence[NamedModule]) -> Host:
    name, block = blocks[layer]
    config, field, at_heads = config_around(model, name), SITES[site].part, SITES[site].at_heads
    axes = _token_axes(config, block)
    if getattr(config, "model_type", "") in UNHOOKED:
        fix = "PyTorch then runs no hooks, so no adapter would act; use another model"
        raise ActshiftError(f"{type(model).__name__} calls the `forward` of its blocks and not the blocks. {fix}.")
    if field is None:
        return Host(site, layer, name, block, width_of(config, name), axes=axes)
    branches = BRANCHES.get(getattr(config, "model_type", ""))
    if at_heads and branches and not find_parts(block, branches.heads):
        raise ActshiftError(_no_heads_message(name, block, branches, blocks))
    fix = "Use site='post_block', which works with any model"
    part = required_parts(config, name, block, field, f"Site {site!r}", fix)[0]
    width, heads = _heads_of(name, part, config) if at_heads else (width_of(config, name), None)
    return Host(site, layer, name + part.suffix, part.module, width, heads, axes)


def _token_axes(config: Any, block: nn.Module) -> tuple[int, int] | None:
    """Return the axes of batch and sequence in the hidden states of a block; None outside of transformers."""
    if not any(cls.__module__.startswith("transformers.") for cls in type(block).__mro__):
        return None
    return TOKEN_AXES.get(getattr(config, "model_type", ""), (0, 1))


def _heads_of(block: str, projection: BlockPart, config: Any) -> tuple[int, int]:
    """Return the width of an output projection's input (not the residual stream's in Qwen3), and its query heads."""
    module, heads = projection.module, getattr(config, "num_attention_heads", None)
    width = getattr(module, "in_features", getattr(module, "nx", None))  # GPT-2's Conv1D calls it nx
    if not isinstance(width, int) or not isinstance(heads, int) or heads < 1 or width % heads:
        raise ActshiftError(
            f"The heads of {block + projection.suffix!r} ({type(module).__name__}) are not known: its input is {width} "
            f"wide and config.num_attention_heads is {heads}, not a divisor of it. Use site='post_attention'."
        )
    return width, heads


def _no_heads_message(name: str, block: nn.Module, branches: Branches, blocks: Sequence[NamedModule]) -> str:
    parts = find_parts(block, branches.attention)
    mixers = ", ".join(f"{part.suffix[1:]} ({type(part.module).__name__})" for part in parts) or "an unknown module"
    with_heads = [layer for layer, (_, other) in enumerate(blocks) if find_parts(other, branches.heads)]
    fix = f"Steer only the layers with heads, layers={with_heads}, or use" if with_heads else "Use"
    problem = f"Block {name!r} ({type(block).__name__}) has no attention heads. It mixes tokens by {mixers}"
    return f"{problem}. {fix} site='post_attention' or 'post_block'."
