"""A shift as the two maps that it is made of, for who computes many of them at once or keeps little of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from actshift.adapters.light import HOOKS_OF_A_CALL


class Factors(NamedTuple):
    """The tensors of Δ(x) = up φ(down x + down_bias) + up_bias; a constant shift has rank 0.

    `down [r, d]`, `up [d, r]`, `down_bias [r]`, `up_bias [d]`; φ by its name in `ACTIVATIONS`.
    """

    down: Tensor
    up: Tensor
    activation: str | None = None
    down_bias: Tensor | None = None
    up_bias: Tensor | None = None

    def to(self, dtype: torch.dtype) -> Factors:
        """Return the same in another dtype."""
        down_bias, up_bias = (None if bias is None else bias.to(dtype) for bias in (self.down_bias, self.up_bias))
        return Factors(self.down.to(dtype), self.up.to(dtype), self.activation, down_bias, up_bias)


def has_hooks(*modules: nn.Module) -> bool:
    """Whether somebody hooks on to a module's calls, and would miss one that its tensors replace."""
    for one in modules:
        held = one.__dict__  # asking a light module for its hooks would make them
        if HOOKS_OF_A_CALL[0] in held and any([held[name] for name in HOOKS_OF_A_CALL]):
            return True
    return False


ACTIVATIONS: dict[str | None, Callable[[Tensor], Tensor]] = {
    None: lambda code: code,
    "silu": F.silu,
    "gelu": F.gelu,
    "relu": F.relu,
    "tanh": torch.tanh,
}


def _silu_slope(gradient: Tensor, code: Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        return torch.ops.aten.silu_backward.default(gradient, code)
    gate = code.sigmoid()  # torch's own kernel has no derivative
    return gradient * gate * (1 + code * (1 - gate))


SLOPES: dict[str | None, Callable[[Tensor, Tensor], Tensor]] = {
    None: lambda gradient, code: gradient,
    "silu": _silu_slope,
    "gelu": torch.ops.aten.gelu_backward,
    "relu": lambda gradient, code: gradient * (code > 0),
    "tanh": lambda gradient, code: gradient * (1 - code.tanh().square()),
}
"""By the same names: g ⊙ φ'(z), of a gradient g and the z that φ was taken of."""
