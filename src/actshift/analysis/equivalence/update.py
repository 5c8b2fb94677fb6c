"""What an update changes: the difference of two sets of weights, by the names of the base model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from actshift.errors import ActshiftError
from actshift.sites.blocks import unwrap


@dataclass(frozen=True)
class Update:
    """The change of every weight that changed, `deltas`, in float32 or wider, by its name in the base model."""

    deltas: Mapping[str, Tensor]

    def below(self, block: str) -> dict[str, Tensor]:
        """Return the changes inside a block, by names relative to it."""
        return {name.removeprefix(f"{block}."): d for name, d in self.deltas.items() if name.startswith(f"{block}.")}

    def outside(self, blocks: list[str]) -> tuple[str, ...]:
        """Return the names of changed weights that no block holds: embeddings, a last norm, a head."""
        return tuple(name for name in self.deltas if not any(name.startswith(f"{block}.") for block in blocks))


def update_between(base: nn.Module, updated: nn.Module | Mapping[str, Tensor]) -> Update:
    """Return the update that takes `base` to `updated`, a model or its state dict.

    Raises ActshiftError where they are not two versions of one model, nothing changed, or a value is not finite.

    >>> from torch import nn
    >>> update_between(nn.Linear(1, 1), {"weight": torch.ones(1, 1), "bias": torch.ones(1)}).deltas.keys()
    dict_keys(['weight', 'bias'])
    """
    ours = dict(unwrap(base).named_parameters())
    theirs = dict(unwrap(updated).named_parameters()) if isinstance(updated, nn.Module) else dict(updated)
    check_twins(ours, theirs)
    deltas = {}
    for name, weight in ours.items():
        wide = torch.promote_types(weight.dtype, torch.float32)
        delta = theirs[name].detach().to(weight.device, wide) - weight.detach().to(wide)
        if not torch.isfinite(delta).all():
            raise ActshiftError(
                f"{name} is not finite in one of the two models: it overflowed its dtype, or training diverged; "
                "save the model in float32 or bfloat16."
            )
        if delta.any():
            deltas[name] = delta
    if not deltas:
        raise ActshiftError("the two models have the same weights, so there is no update to look at; check the paths.")
    return Update(deltas)


def check_twins(base: Mapping[str, Tensor], updated: Mapping[str, Tensor]) -> None:
    """Raise ActshiftError unless both hold the same weights, in the same shapes."""
    for name, weight in base.items():
        if name not in updated:
            raise ActshiftError(
                f"the updated model has no {name}, so it is no version of the base; give two checkpoints of one "
                "architecture."
            )
        if updated[name].shape != weight.shape:
            raise ActshiftError(
                f"{name} is {list(weight.shape)} in the base and {list(updated[name].shape)} in the updated model; "
                "give two checkpoints of the same size."
            )
    if more := sorted(name for name in updated if name not in base and name.endswith((".weight", ".bias"))):
        tied = [name for name in more if name.partition(".")[0] in ("lm_head", "score")]
        if len(tied) < len(more):
            raise ActshiftError(f"the updated model has {more[0]}, which the base lacks; give two of one architecture.")
