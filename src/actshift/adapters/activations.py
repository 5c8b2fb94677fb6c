"""The nonlinearities φ of a low-rank map, each with the product of a gradient and its derivative."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

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
