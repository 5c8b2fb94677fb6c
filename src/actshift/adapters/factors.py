"""The tensors of a low-rank or constant shift, and the activation functions with their derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Factors(NamedTuple):
    """The tensors of Δ(x) = up φ(down x + down_bias) + up_bias. A constant shift has rank 0.

    `down [r, d]`, `up [d, r]`, `down_bias [r]` or None, `up_bias [d]` or None. `activation` is the name of φ in
    `ACTIVATIONS`, None for the identity.
    """

    down: Tensor
    up: Tensor
    activation: str | None = None
    down_bias: Tensor | None = None
    up_bias: Tensor | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> Factors:
        """Return the factors with `change` applied to every tensor."""
        down_bias, up_bias = (None if bias is None else change(bias) for bias in (self.down_bias, self.up_bias))
        return Factors(change(self.down), change(self.up), self.activation, down_bias, up_bias)

    def to(self, dtype: torch.dtype) -> Factors:
        """Return the same factors in another dtype."""
        return self.map(lambda tensor: tensor.to(dtype))


def has_hooks(*modules: nn.Module) -> bool:
    """Return whether any of the modules has a forward or backward hook, which runs only if the module is called."""
    for module in modules:
        hooks = vars(module)  # skips nn.Module's attribute lookup, which is slow in decoding
        forward = hooks["_forward_hooks"] or hooks["_forward_pre_hooks"]
        if forward or hooks["_backward_hooks"] or hooks["_backward_pre_hooks"]:
            return True
    return False


ACTIVATIONS: dict[str | None, Callable[[Tensor], Tensor]] = {
    None: lambda code: code,
    "silu": F.silu,
    "gelu": F.gelu,
    "relu": F.relu,
    "tanh": torch.tanh,
}
"""The activation functions φ by name, for a code `z [..., r]`."""


def _silu_derivative(gradient: Tensor, code: Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        return torch.ops.aten.silu_backward.default(gradient, code)
    gate = code.sigmoid()  # aten.silu_backward is not differentiable
    return gradient * gate * (1 + code * (1 - gate))


DERIVATIVES: dict[str | None, Callable[[Tensor, Tensor], Tensor]] = {
    None: lambda gradient, code: gradient,
    "silu": _silu_derivative,
    "gelu": torch.ops.aten.gelu_backward,
    "relu": lambda gradient, code: gradient * (code > 0),
    "tanh": lambda gradient, code: gradient * (1 - code.tanh().square()),
}
"""The backward pass g ⊙ φ'(z) of each activation, for a gradient g and the code z, both `[..., r]`."""
