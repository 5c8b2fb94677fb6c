"""Resolve a site's name and layers to the modules of one model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from actshift.errors import ActshiftError
from actshift.sites.blocks import find_blocks, unwrap
from actshift.sites.heads import heads_of
from actshift.sites.lookup import Found, config_around, find_all, row_of, width_of
from actshift.sites.site import Host, check_site


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
