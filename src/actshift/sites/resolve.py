"""Resolve a site's name and layers to the modules of one model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from actshift.errors import ActshiftError
from actshift.sites.architectures import BRANCHES
from actshift.sites.blocks import find_blocks, text_config, unwrap
from actshift.sites.site import Host, check_site


def resolve(
    model: nn.Module, site: str = "post_block", layers: Sequence[int] | None = None, blocks: str | None = None
) -> list[Host]:
    """Return the modules of `model` that a steering site stands for, one per layer, in the order of `layers`.

    `layers` counts blocks from 0, or from the end if negative; None is every block. `blocks` names the
    list of blocks where the model leaves that open. `post_block` works with any model; `post_mlp` and
    `post_attention` need a row in `BRANCHES`.

    Raises:
        ActshiftError: an unknown site, a layer twice or out of range, a model whose blocks, branches or width
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
    for layer in _indices(layers, len(found), type(model).__name__):
        name, block = found[layer]
        config = _config_around(model, name)
        suffix, module = _branch(block, site, config)
        hosts.append(Host(site, layer, name + suffix, module, _width(config, name)))
    return hosts


def _indices(layers: Sequence[int] | None, count: int, kind: str) -> list[int]:
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


def _config_around(model: nn.Module, block: str) -> Any:
    """The config nearest to a block: the two halves of a composite model each have their own."""
    path = block
    while path:
        path = path.rpartition(".")[0]
        if (config := text_config(model.get_submodule(path))) is not None:
            return config
    return None


def _width(config: Any, block: str) -> int:
    width = getattr(config, "hidden_size", None)  # transformers' attribute_map answers for n_embd and d_model
    if not isinstance(width, int):
        where = "the model has no config" if config is None else f"{type(config).__name__} has no hidden_size"
        raise ActshiftError(f"The width of block {block!r} is not known: {where}; set config.hidden_size.")
    return width


def _branch(block: nn.Module, site: str, config: Any) -> tuple[str, nn.Module]:
    if site == "post_block":
        return "", block
    model_type = getattr(config, "model_type", None)
    if model_type not in BRANCHES:
        raise ActshiftError(
            f"{site} is not known for model_type {model_type!r} ({type(block).__name__}); use "
            f"site='post_block', which needs no table, or one of: {', '.join(sorted(BRANCHES))}."
        )
    branches = BRANCHES[model_type]
    names = branches.mlp if site == "post_mlp" else branches.attention
    for name in (names,) if isinstance(names, str) else names:
        if found := _descend(block, name):
            return found
    raise ActshiftError(
        f"{site} of model_type {model_type!r} should be {names!r}, which this {type(block).__name__} lacks; "
        "use site='post_block', or a transformers version actshift is tested with."
    )


def _descend(block: nn.Module, name: str) -> tuple[str, nn.Module] | None:
    suffix, module = "", block
    for key in name.split("."):
        children = dict(module.named_children())
        key = list(children)[int(key)] if key.startswith("-") else key
        if key not in children:
            return None
        suffix, module = f"{suffix}.{key}", children[key]
    return suffix, module
