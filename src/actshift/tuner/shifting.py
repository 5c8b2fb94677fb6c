"""How one adapter's shift is added to an activation: through its factors where it has some, else by calling it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from actshift.adapters.factors import Factors
from actshift.adapters.lean import add_shift


def usable_factors(adapter: Any) -> Factors | None:
    """Return the adapter's tensors, or None where it must be called instead.

    That is where it is no low-rank map, where somebody hooks on to its calls, where an offloader puts its tensors in
    place for the call only, and under a compiler, which fuses the plain formula by itself.
    """
    factors = None if torch.compiler.is_compiling() else adapter.factors()
    return None if factors is None or factors.down.is_meta else factors


def shift_of(adapter: nn.Module, x: Tensor, strength: float) -> Tensor:
    """Return s·Δ(x) in the dtype of `x`, by calling the adapter; it may only broadcast to the shape of `x`."""
    wanted = x if torch.is_autocast_enabled(x.device.type) else x.to(next(adapter.parameters()).dtype)
    shift = adapter(wanted)
    return (shift if strength == 1 else strength * shift).to(x.dtype)


def plus_shift(base: Tensor, adapter: nn.Module, x: Tensor, strength: float) -> Tensor:
    """Return `base + s·Δ(x)`, both `[..., d]`."""
    factors = usable_factors(adapter)
    return base + shift_of(adapter, x, strength) if factors is None else add_shift(base, x, factors, strength)
