"""x + s·Δ(x) in few kernels, and for training while keeping less than autograd would.

A plain `x + up(φ(down(x)))` keeps its input x until the backward pass, for the gradient of W_down. The sum
y = x + s·W_up c, with c = φ(z) and z = W_down x, is kept by whoever comes next (a norm, say), so here y is kept in
place of x, at no cost, and the code z `[tokens, r]`. With δ the gradient that arrives at z, that of W_down is

    δᵀ x = δᵀ y − s (δᵀ c) W_upᵀ

and x is never computed again. Source: [ours]; keeping outputs in place of inputs is what reversible networks do.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from actshift.adapters import fused
from actshift.adapters.activations import ACTIVATIONS, SLOPES
from actshift.adapters.factors import Factors


def add_shift(base: Tensor, x: Tensor, factors: Factors, strength: float = 1.0) -> Tensor:
    """Return `base + s·Δ(x)`, both `[..., d]`, in the dtype of `base`; autograd keeps x where it needs it.

    >>> from actshift import Vector
    >>> add_shift(torch.ones(2, 3), torch.ones(2, 3), Vector().build(3).factors()).tolist()
    [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """
    down, up, activation, down_bias, up_bias = factors
    if up_bias is not None and not down.shape[0]:
        return base + (up_bias if strength == 1 else strength * up_bias).to(base.dtype)
    dtype = product_dtype(x, down.dtype)
    if not torch.is_grad_enabled() and fused.takes(x, factors, base):
        width = x.shape[-1]
        return fused.sum_and_code(base.reshape(-1, width), x.reshape(-1, width), factors, strength, dtype)[0].view_as(
            base
        )
    if x.dtype != dtype or down.dtype != dtype:
        x, (down, up, activation, down_bias, up_bias) = x.to(dtype), factors.to(dtype)
    shift = F.linear(ACTIVATIONS[activation](F.linear(x, down, down_bias)), up, up_bias)
    if strength != 1:
        shift = strength * shift
    return base + (shift if base.dtype == dtype else shift.to(base.dtype))


def add_shift_leanly(x: Tensor, factors: Factors, strength: float = 1.0) -> Tensor:
    """Return `x + s·Δ(x)` for `x [..., d]`, keeping the sum and the code `[..., r]` for the backward pass.

    Worth it where the sum is kept by somebody else anyhow, and wrong where it is then changed in place: autograd
    says so in an error. In bfloat16 and float16 the sum was rounded, so that W_down's gradient carries one rounding
    of y where the plain one carries one of x. Under torch.func and forward-mode differentiation it is `add_shift`.

    >>> from actshift import LowRank
    >>> add_shift_leanly(torch.ones(2, 4), LowRank(rank=2).build(4).factors()).tolist()[0]
    [1.0, 1.0, 1.0, 1.0]
    """
    down, up, activation, down_bias, up_bias = factors
    if not (torch.is_grad_enabled() and down.shape[0] and fused.is_plain_autograd()):
        return add_shift(x, x, factors, strength)
    flat, dtype = x.reshape(-1, down.shape[1]), product_dtype(x, down.dtype)
    return _Lean.apply(flat, down, up, down_bias, up_bias, activation, strength, dtype)[0].view(x.shape)


def product_dtype(x: Tensor, own: torch.dtype) -> torch.dtype:
    """Return the dtype of both products: autocast's, or the adapter's own, which may be wider than that of x."""
    if not torch._C._is_any_autocast_enabled():  # in decoding, to ask for the kind of device takes too long
        return own
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else own


class _Lean(torch.autograd.Function):
    """(x, …) → (y, z); z is an output so that a second backward pass finds its way through it."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        x: Tensor,
        down: Tensor,
        up: Tensor,
        down_bias: Tensor | None,
        up_bias: Tensor | None,
        activation: str | None,
        strength: float,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        factors = Factors(down, up, activation, down_bias, up_bias)
        if fused.takes(x, factors):
            y, z = fused.sum_and_code(x, x, factors, strength, dtype)
        else:
            y, z = _sum_and_code(x, factors.to(dtype), strength)
        ctx.save_for_backward(y, z, down, up, up_bias)
        ctx.activation, ctx.strength, ctx.biased = activation, strength, down_bias is not None
        ctx.set_materialize_grads(False)
        return y, z

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor | None, grad_z: Tensor | None) -> Any:  # type: ignore[override]
        y, z, down, up, up_bias = ctx.saved_tensors
        s, dtype = ctx.strength, z.dtype
        grad_y = torch.zeros_like(y) if grad_y is None else grad_y
        # Of each product the layout is taken that the CPU's kernels are quick at: they are 2 to 4 times slower with a
        # thin matrix on the right, or a thin result.
        wide, writes = grad_y.to(dtype), up.to(dtype).t().contiguous()
        code = ACTIVATIONS[ctx.activation](z)
        needs_x, needs_down, needs_up = ctx.needs_input_grad[:3]
        grad_down = grad_up = grad_down_bias = grad_up_bias = None
        factors = Factors(down, up, ctx.activation)
        if needs_x and grad_z is None and not torch.is_grad_enabled() and fused.takes(grad_y, factors, z):
            delta, grad_x = fused.delta_and_gradient(grad_y, z, factors, s)
        else:
            delta = SLOPES[ctx.activation](s * F.linear(wide, writes), z)
            delta = delta if grad_z is None else delta + grad_z
            grad_x = _plus_product(grad_y, delta, down.to(dtype)) if needs_x else None
        if needs_down:
            grad_down = delta.t() @ y.to(dtype) - s * (delta.t() @ code) @ writes
            if up_bias is not None:
                grad_down = grad_down - s * torch.outer(delta.sum(0), up_bias.to(dtype))
        if needs_up:
            grad_up = s * (code.t() @ wide).t()
        if ctx.biased and ctx.needs_input_grad[3]:
            grad_down_bias = delta.sum(0)
        if up_bias is not None and ctx.needs_input_grad[4]:
            grad_up_bias = s * wide.sum(0)
        return grad_x, grad_down, grad_up, grad_down_bias, grad_up_bias, None, None, None


def _plus_product(base: Tensor, left: Tensor, right: Tensor) -> Tensor:
    if base.dtype == left.dtype:
        return torch.addmm(base, left, right)
    return base + (left @ right).to(base.dtype)


def _sum_and_code(x: Tensor, factors: Factors, strength: float) -> tuple[Tensor, Tensor]:
    """Return `x + s·Δ(x) [tokens, d]` and z `[tokens, r]`, where the dtypes allow it in one product with the sum."""
    down, up, activation, down_bias, up_bias = factors
    z = F.linear(x.to(down.dtype), down, down_bias)
    code = ACTIVATIONS[activation](z)
    if x.dtype != down.dtype:
        return x + (strength * F.linear(code, up, up_bias)).to(x.dtype), z
    base = x if up_bias is None else torch.add(x, up_bias, alpha=strength)
    return torch.addmm(base, code, up.t(), alpha=strength), z
