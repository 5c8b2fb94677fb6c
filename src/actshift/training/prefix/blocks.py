"""The blocks below the first thing that training changes: what they give for a batch stays the same."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from actshift.errors import ActshiftError
from actshift.sites import find_blocks
from actshift.sites.blocks import unwrap
from actshift.tuner.layer import CHILD


@dataclass(frozen=True)
class Prefix:
    """The first `blocks` of a model, and their `owner`, whose forward runs all blocks one after another."""

    owner: nn.Module
    blocks: tuple[nn.Module, ...]


def find_prefix(model: nn.Module) -> Prefix:
    """Return the blocks whose forward passes no trained parameter takes part in.

    A block that is steered after its end alone is one of them: the shift is a hook on its output.

    Raises ActshiftError where there is none, and for an encoder-decoder, whose blocks are two rows.

    >>> from actshift.demo import load_base
    >>> model = load_base()[0].requires_grad_(False)
    >>> _ = model.model.layers[2].requires_grad_(True)
    >>> len(find_prefix(model).blocks)
    2
    """
    found = find_blocks(model)
    lists = {name.rpartition(".")[0] for name, _ in found}
    if len(lists) > 1:
        raise ActshiftError(
            f"{type(unwrap(model)).__name__} has an encoder and a decoder, and cache_prefix is for one row of blocks; "
            "leave it off."
        )
    blocks = []
    for _, block in found:
        trained = [name for name, parameter in block.named_parameters() if parameter.requires_grad]
        if all(name.startswith(f"{CHILD}.") for name in trained):
            blocks.append(block)
        if trained:
            break
    if not blocks:
        raise ActshiftError(
            "Training begins inside the first block, so there is nothing below that cache_prefix could keep; steer "
            "upper blocks alone, as --layers 4: does, or leave it off."
        )
    return Prefix(unwrap(model).get_submodule(lists.pop().rpartition(".")[0]), tuple(blocks))
