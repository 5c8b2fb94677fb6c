"""Resolve a site's name and layers to the modules of one model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from torch import Tensor, nn

from actshift.errors import ActshiftError, did_you_mean
from actshift.sites.architectures import BRANCHES, Branches, Names
from actshift.sites.blocks import Named, find_blocks, text_config, unwrap

Site = Literal["post_block", "post_mlp", "post_attention", "attention_heads"]
"""Where the shift is added: after both skips, to the MLP's branch, to the attention's branch, or to what its heads
give, before the output projection mixes them."""

SITES: tuple[str, ...] = get_args(Site)


@dataclass(frozen=True)
class Host:
    """One module whose output is steered: the hidden states `[batch, seq, width]`, or a tuple they begin.

    At `attention_heads` it is the module's input that is steered (`at_input`), which is `heads` vectors side by side.

    `layer` counts the blocks from 0 in forward order (an encoder's, then the decoder's), `name` is the
    module's qualified name in the model without its PEFT wrapper, and `width` is that of the activation. OPT's
    `post_mlp` is flat, `[batch * seq, width]`.
    """

    site: str
    layer: int
    name: str
    module: nn.Module
    width: int
    heads: int | None = None

    @property
    def at_input(self) -> bool:
        """Whether what goes into the module is steered, and not what comes out."""
        return self.site == "attention_heads"


def hidden_of(output: Any) -> Any:
    """Return the hidden states in what a module returned: all of it, or what a tuple begins with.

    >>> hidden_of(("hidden", "weights"))
    'hidden'
    """
    return output[0] if isinstance(output, tuple) else output


def with_hidden(output: Any, hidden: Any) -> Any:
    """Return `output` with other hidden states, whether it is a tuple that begins with them or not.

    >>> with_hidden(("hidden", "weights"), "steered")
    ('steered', 'weights')
    """
    return (hidden, *output[1:]) if isinstance(output, tuple) else hidden


def check_site(site: str) -> None:
    """Raise ActshiftError unless `site` is one of SITES.

    >>> check_site("post_block")
    """
    if site not in SITES:
        hint = did_you_mean(str(site).replace("-", "_"), SITES)
        raise ActshiftError(f"There is no site {site!r}{hint}; the sites are {', '.join(SITES)}.")


class Found(NamedTuple):
    """What is at a path: the suffix after the block's name, and a module or one stacked parameter of it."""

    suffix: str
    module: nn.Module
    parameter: str | None = None


def config_around(model: nn.Module, block: str) -> Any:
    """Return the config nearest to a block, or None: the two halves of a composite model each have their own."""
    path = block
    while path:
        path = path.rpartition(".")[0]
        if (config := text_config(model.get_submodule(path))) is not None:
            return config
    return None


def width_of(config: Any, block: str) -> int:
    """Return the width d of the residual stream; raise ActshiftError where the config does not tell it."""
    width = getattr(config, "hidden_size", None)  # transformers' attribute_map answers for n_embd and d_model
    if not isinstance(width, int):
        where = "the model has no config" if config is None else f"{type(config).__name__} has no hidden_size"
        raise ActshiftError(f"The width of block {block!r} is not known: {where}; set config.hidden_size.")
    return width


def row_of(config: Any, block: nn.Module, wanted: str, instead: str) -> Branches:
    """Return a model's row of BRANCHES; raise ActshiftError that `wanted` is not known, and what to do `instead`."""
    model_type = getattr(config, "model_type", None)
    if model_type not in BRANCHES:
        raise ActshiftError(
            f"{wanted} is not known for model_type {model_type!r} ({type(block).__name__}); {instead}, or one of: "
            f"{', '.join(sorted(BRANCHES))}."
        )
    return BRANCHES[model_type]


def find_all(block: nn.Module, names: Names) -> list[Found]:
    """Return all of `names` that a block has, in their order."""
    names = (names,) if isinstance(names, str) else names
    return [found for name in names if (found := _descend(block, name))]


def _descend(block: nn.Module, name: str) -> Found | None:
    suffix, module, keys = "", block, name.split(".")
    for position, key in enumerate(keys):
        inner = _inside(module, key)
        children = dict(inner.named_children())
        key = list(children)[int(key)] if key.startswith("-") else key
        suffix = f"{suffix}.{key}"
        if key in children:
            module = children[key]
        elif position == len(keys) - 1 and isinstance(getattr(inner, key, None), Tensor):
            return Found(suffix, module, key)
        else:
            return None
    return Found(suffix, module)


def _inside(module: nn.Module, key: str) -> nn.Module:
    """Look through PEFT's wrappers of a module with stacked parameters, one for each parameter."""
    while not hasattr(module, key) and isinstance(inner := getattr(module, "base_layer", None), nn.Module):
        module = inner
    return module


class Heads(NamedTuple):
    """The output projection of a block's attention: its input is `heads` vectors of width / heads side by side."""

    found: Found
    width: int
    heads: int


def heads_of(name: str, block: nn.Module, config: Any, blocks: Sequence[Named]) -> Heads:
    """Return the output projection of one of the model's `blocks`, the width of its input and the query heads.

    The width is the projection's own, heads · d_head, which need not be that of the residual stream (Qwen3,
    Gemma-3). Under grouped-query attention the heads are the query heads, and each has its vector there.

    Raises ActshiftError for an architecture without a row, a block without such heads (linear attention, a
    convolution), naming the blocks that have them, and a projection whose input cannot be cut into the heads.
    """
    row = row_of(config, block, "attention_heads", "use site='post_block', which needs no table")
    if not (found := find_all(block, row.heads)):
        raise ActshiftError(_lacking(name, block, row.attention, [bool(find_all(b, row.heads)) for _, b in blocks]))
    module, heads = found[0].module, getattr(config, "num_attention_heads", None)
    width = getattr(module, "in_features", getattr(module, "nx", None))  # GPT-2's Conv1D calls it nx
    if not isinstance(width, int) or not isinstance(heads, int) or heads < 1 or width % heads:
        raise ActshiftError(
            f"the heads of {name + found[0].suffix!r} ({type(module).__name__}) are not known: its input is {width} "
            f"wide and config.num_attention_heads is {heads}, where the first must be a multiple of the second; "
            "use site='post_attention'."
        )
    return Heads(found[0], width, heads)


def _lacking(name: str, block: nn.Module, attention: Names, with_heads: list[bool]) -> str:
    kinds = ", ".join(f"{found.suffix[1:]} ({type(found.module).__name__})" for found in find_all(block, attention))
    others = [layer for layer, has in enumerate(with_heads) if has]
    layers = f"steer the layers that have them, layers={others}, or " if others else ""
    return (
        f"attention_heads: block {name!r} ({type(block).__name__}) has no attention heads, it mixes tokens by "
        f"{kinds or 'something unknown'}; {layers}use site='post_attention' or 'post_block'."
    )


def resolve(
    model: nn.Module, site: str = "post_block", layers: Sequence[int] | None = None, blocks: str | None = None
) -> list[Host]:
    """Return the modules of `model` that a steering site stands for, one per layer, in the order of `layers`.

    `layers` counts blocks from 0, or from the end if negative; None is every block. `blocks` names the
    list of blocks where the model leaves that open. `post_block` works with any model; `post_mlp`,
    `post_attention` and `attention_heads` need a row in `BRANCHES`.

    Raises:
        ActshiftError: an unknown site, a layer twice or out of range, a model whose blocks, branches, heads or width
            cannot be told.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> size = dict(vocab_size=8, hidden_size=8, intermediate_size=8, num_attention_heads=2)
        >>> model = LlamaForCausalLM(LlamaConfig(num_hidden_layers=3, **size))
        >>> [(host.layer, host.name, host.width) for host in resolve(model, "post_mlp", layers=[0, -1])]
        [(0, 'model.layers.0.mlp', 8), (2, 'model.layers.2.mlp', 8)]
    """
    check_site(site)
    model = unwrap(model)
    found = find_blocks(model, blocks)
    hosts = []
    for layer in block_indices(layers, len(found), type(model).__name__):
        name, block = found[layer]
        config = config_around(model, name)
        if site == "attention_heads":
            (suffix, module, _), width, heads = heads_of(name, block, config, found)
        else:
            (suffix, module, _), width, heads = _branch(block, site, config), width_of(config, name), None
        hosts.append(Host(site, layer, name + suffix, module, width, heads))
    return hosts


def block_indices(layers: Sequence[int] | None, count: int, kind: str) -> list[int]:
    """Return the indices from 0 that `layers` names among `count` blocks of a model of class `kind`, or raise."""
    if layers is None:
        return list(range(count))
    has = f"{kind} has {count} block{'s' if count > 1 else ''}, 0 to {count - 1} (or {-count} to -1)"
    if not isinstance(layers, Sequence) or any(type(layer) is not int for layer in layers) or not layers:
        raise ActshiftError(f"layers={layers!r} is not a list of block indices such as [0, -1]: {has}.")
    chosen: list[int] = []
    for layer in layers:
        if not -count <= layer < count:
            raise ActshiftError(f"layer {layer} is out of range: {has}.")
        if layer % count in chosen:
            raise ActshiftError(f"layer {layer} is named twice in {list(layers)}: {has}; name each block once.")
        chosen.append(layer % count)
    return chosen


def _branch(block: nn.Module, site: str, config: Any) -> Found:
    if site == "post_block":
        return Found("", block)
    row = row_of(config, block, site, "use site='post_block', which needs no table")
    names = row.mlp if site == "post_mlp" else row.attention
    if found := find_all(block, names):
        return found[0]
    raise ActshiftError(
        f"{site} of model_type {config.model_type!r} should be {names!r}, which this {type(block).__name__} lacks; "
        "use site='post_block', or a transformers version actshift is tested with."
    )
