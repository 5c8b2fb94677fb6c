"""Low-rank maps of one kind stacked, so that each row of a batch is shifted by its own in one batched product."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from actshift.adapters import fused
from actshift.adapters.factors import ACTIVATIONS, SLOPES, Factors


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


def add_shift_memory_efficient(x: Tensor, factors: Factors, strength: float = 1.0) -> Tensor:
    """Return `x + s·Δ(x)` for `x [..., d]`, keeping the sum and the code `[..., r]` for the backward pass.

    Worth it where the sum is kept by somebody else anyhow, and wrong where it is then changed in place: autograd
    says so in an error. In bfloat16 and float16 the sum was rounded, so that W_down's gradient carries one rounding
    of y where the plain one carries one of x. Under torch.func and forward-mode differentiation it is `add_shift`.

    >>> from actshift import LowRank
    >>> add_shift_memory_efficient(torch.ones(2, 4), LowRank(rank=2).build(4).factors()).tolist()[0]
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


class Product(NamedTuple):
    """The `factors` of R rows: `down [R, r, d]`, `up [R, d, r]`, `down_bias [R, 1, r]`, `up_bias [R, 1, d]`.

    Each row's strength is in `up` and `up_bias`. Ranks below r are filled up with zeros, and rows without an adapter
    are zero, so that they keep their values to the bit.
    """

    factors: Factors

    def add(self, base: Tensor, x: Tensor) -> Tensor:
        """Return `base + s·Δ(x)` in the dtype of `base`, for `base` and `x` of `[R, tokens, d]`."""
        factors, up_bias = self.factors, self.factors.up_bias
        dtype = product_dtype(x, factors.down.dtype)
        if not torch.is_grad_enabled() and fused.takes(x, factors, base):
            return fused.sum_and_code(base, x, factors, 1.0, dtype)[0]
        shifted = base if up_bias is None else base + up_bias.to(base.dtype)
        if not factors.down.shape[1]:
            return shifted
        down, up, activation, down_bias, _ = factors.to(dtype)
        wide = x.to(dtype)
        code = wide @ down.mT if down_bias is None else torch.baddbmm(down_bias, wide, down.mT)
        code = ACTIVATIONS[activation](code)
        return torch.baddbmm(shifted, code, up.mT) if base.dtype == dtype else shifted + (code @ up.mT).to(base.dtype)

    def of_rows(self, rows: Sequence[int]) -> Product:
        """Return that of some of the rows."""
        down, up, activation, *biases = self.factors
        down_bias, up_bias = (None if bias is None else bias[rows] for bias in biases)
        return Product(Factors(down[rows], up[rows], activation, down_bias, up_bias))


def stacked(shifts: Mapping[int, tuple[Factors, float]], count: int) -> Product:
    """Return the product of `count` rows, of which some have factors and a strength; of one activation and width.

    >>> from actshift import Vector
    >>> product = stacked({1: (Vector().build(3).factors()._replace(up_bias=torch.ones(3)), 2.0)}, count=2)
    >>> product.add(torch.zeros(2, 1, 3), torch.zeros(2, 1, 3)).tolist()
    [[[0.0, 0.0, 0.0]], [[2.0, 2.0, 2.0]]]
    """
    example = next(iter(shifts.values()))[0]
    rank, width = max(len(factors.down) for factors, _ in shifts.values()), example.down.shape[1]
    nothing = Factors(example.down.new_zeros(rank, width), example.up.new_zeros(width, rank))
    rows = [shifts.get(row, (nothing, 1.0)) for row in range(count)]

    def biases(name: str, size: int) -> Tensor | None:
        found = [getattr(factors, name) for factors, _ in rows]
        if all(bias is None for bias in found):
            return None
        zeros = example.down.new_zeros(size)
        return torch.stack([zeros if bias is None else F.pad(bias, (0, size - len(bias))) for bias in found])[:, None]

    strength = torch.tensor([s for _, s in rows], dtype=example.down.dtype, device=example.down.device)[:, None, None]
    up_bias = biases("up_bias", width)
    factors = Factors(
        torch.stack([F.pad(factors.down, (0, 0, 0, rank - len(factors.down))) for factors, _ in rows]),
        strength * torch.stack([F.pad(factors.up, (0, rank - factors.up.shape[1])) for factors, _ in rows]),
        example.activation,
        biases("down_bias", rank),
        None if up_bias is None else strength * up_bias,
    )
    return Product(factors)
