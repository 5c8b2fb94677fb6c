"""The tensors of low-rank and constant shifts, and their sums with activations, also with one adapter per batch row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

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


def add_shift(base: Tensor, x: Tensor, factors: Factors, strength: float = 1.0) -> Tensor:
    """Return `base + s·Δ(x)`, in the dtype of `base`, for `base [..., d]`, an activation `x [..., d]` and strength s.

    >>> from actshift import Vector
    >>> add_shift(torch.ones(2, 3), torch.ones(2, 3), Vector().build(3).factors()).tolist()
    [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """
    down, up, activation, down_bias, up_bias = factors
    if up_bias is not None and not down.shape[0]:
        return base + (up_bias if strength == 1 else strength * up_bias).to(base.dtype)
    dtype = _compute_dtype(x, down.dtype)
    if x.dtype != dtype or down.dtype != dtype:
        x, (down, up, activation, down_bias, up_bias) = x.to(dtype), factors.to(dtype)
    shift = F.linear(ACTIVATIONS[activation](F.linear(x, down, down_bias)), up, up_bias)
    if strength != 1:
        shift = strength * shift
    return base + (shift if base.dtype == dtype else shift.to(base.dtype))


def add_shift_memory_efficient(x: Tensor, factors: Factors, strength: float = 1.0) -> Tensor:
    """Return `x + s·Δ(x)`, saving the sum and the code `[..., r]` for the backward pass instead of x.

    This saves memory if something else keeps the sum anyway, as the next block does. The sum must not be changed in
    place; autograd then raises an error. In bfloat16 and float16, W_down's gradient contains the rounding error of the
    sum instead of that of x. Under torch.func and forward-mode differentiation this is `add_shift`.

    Source: this project, docs/method.md#memory-efficient-backward.

    >>> from actshift import LowRank
    >>> add_shift_memory_efficient(torch.ones(2, 4), LowRank(rank=2).build(4).factors()).tolist()[0]
    [1.0, 1.0, 1.0, 1.0]
    """
    down, up, activation, down_bias, up_bias = factors
    if not (torch.is_grad_enabled() and down.shape[0] and _is_plain_autograd()):
        return add_shift(x, x, factors, strength)
    constants = (activation, strength, _compute_dtype(x, down.dtype))
    y, _ = _MemoryEfficientSum.apply(x.reshape(-1, down.shape[1]), constants, down, up, down_bias, up_bias)
    return y.view(x.shape)


class _MemoryEfficientSum(torch.autograd.Function):
    """Compute (x, factors, …) → (y, z): the sum y `[tokens, d]` and the code before the activation, z `[tokens, r]`.

    z is an output so that double backward can differentiate through it.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, constants: tuple[str | None, float, torch.dtype], *tensors: Any) -> Any:
        (activation, strength, dtype), (down, up, down_bias, up_bias) = constants, tensors
        factors = Factors(down, up, activation, down_bias, up_bias).to(dtype)
        z = F.linear(x.to(dtype), factors.down, factors.down_bias)
        code = ACTIVATIONS[activation](z)
        if x.dtype != dtype:
            y = x + (strength * F.linear(code, factors.up, factors.up_bias)).to(x.dtype)
        else:  # one product with the sum
            base = x if factors.up_bias is None else torch.add(x, factors.up_bias, alpha=strength)
            y = torch.addmm(base, code, factors.up.t(), alpha=strength)
        ctx.save_for_backward(y, z, down, up, up_bias)
        ctx.activation, ctx.strength = activation, strength
        ctx.set_materialize_grads(False)
        return y, z

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor | None) -> Any:
        grad_y, grad_z = grad_outputs
        y, z, down, up, up_bias = ctx.saved_tensors
        s, dtype = ctx.strength, z.dtype
        grad_y = torch.zeros_like(y) if grad_y is None else grad_y
        # The layout of each product is the fast one on CPUs: a thin matrix on the right, or a thin result, makes
        # their kernels 2 to 4 times slower.
        grad_sum, up_rows = grad_y.to(dtype), up.to(dtype).t().contiguous()
        code = ACTIVATIONS[ctx.activation](z)
        needs_x, _, needs_down, needs_up, needs_down_bias, needs_up_bias = ctx.needs_input_grad
        grad_x = grad_down = grad_up = grad_down_bias = grad_up_bias = None
        delta = DERIVATIVES[ctx.activation](s * F.linear(grad_sum, up_rows), z)
        delta = delta if grad_z is None else delta + grad_z
        if needs_x:
            same, rows = y.dtype == dtype, down.to(dtype)
            grad_x = torch.addmm(grad_y, delta, rows) if same else grad_y + (delta @ rows).to(y.dtype)
        if needs_down:  # δᵀx, with x = y - s·(φ(z) upᵀ + up_bias)
            grad_down = delta.t() @ y.to(dtype) - s * (delta.t() @ code) @ up_rows
            if up_bias is not None:
                grad_down = grad_down - s * torch.outer(delta.sum(0), up_bias.to(dtype))
        if needs_up:
            grad_up = s * (code.t() @ grad_sum).t()
        if needs_down_bias:
            grad_down_bias = delta.sum(0)
        if needs_up_bias:
            grad_up_bias = s * grad_sum.sum(0)
        return grad_x, None, grad_down, grad_up, grad_down_bias, grad_up_bias


class StackedShifts(Factors):
    """The shifts of R batch rows, each with its own adapter, as batched products.

    The shapes are `down [R, r, d]`, `up [R, d, r]`, `down_bias [R, 1, r]` and `up_bias [R, 1, d]`. `up` and `up_bias`
    are multiplied by each row's strength. Ranks below r are padded with zeros. Rows without an adapter are all zero,
    and their values stay bit-identical.
    """

    def add(self, base: Tensor, x: Tensor) -> Tensor:
        """Return `base + s·Δ(x)` in the dtype of `base`, for `base` and `x` of shape `[R, tokens, d]`."""
        dtype = _compute_dtype(x, self.down.dtype)
        shifted = base if self.up_bias is None else base + self.up_bias.to(base.dtype)
        if not self.down.shape[1]:
            return shifted
        x, (down, up, activation, down_bias, _) = x.to(dtype), self.to(dtype)
        code = ACTIVATIONS[activation](x @ down.mT if down_bias is None else torch.baddbmm(down_bias, x, down.mT))
        return torch.baddbmm(shifted, code, up.mT) if base.dtype == dtype else shifted + (code @ up.mT).to(base.dtype)


def stack_shifts(shifts: Mapping[int, tuple[Factors, float]], count: int) -> StackedShifts:
    """Stack the factors of R = `count` rows, given factors (of one activation and width d) and strength by row.

    Source: this project, docs/method.md#row-adapters.

    >>> from actshift import Vector
    >>> shifts = stack_shifts({1: (Vector().build(3).factors()._replace(up_bias=torch.ones(3)), 2.0)}, count=2)
    >>> shifts.add(torch.zeros(2, 1, 3), torch.zeros(2, 1, 3)).tolist()
    [[[0.0, 0.0, 0.0]], [[2.0, 2.0, 2.0]]]
    """
    example = next(iter(shifts.values()))[0]
    rank, width = max(len(factors.down) for factors, _ in shifts.values()), example.down.shape[1]
    no_shift = Factors(example.down.new_zeros(rank, width), example.up.new_zeros(width, rank))
    rows = [shifts.get(row, (no_shift, 1.0)) for row in range(count)]
    strength = example.down.new_tensor([s for _, s in rows])[:, None, None]
    down = torch.stack([F.pad(factors.down, (0, 0, 0, rank - len(factors.down))) for factors, _ in rows])
    up = strength * torch.stack([F.pad(factors.up, (0, rank - factors.up.shape[1])) for factors, _ in rows])
    down_bias = _stack_biases([factors.down_bias for factors, _ in rows], example.down.new_zeros(rank))
    up_bias = _stack_biases([factors.up_bias for factors, _ in rows], example.down.new_zeros(width))
    up_bias = None if up_bias is None else strength * up_bias
    return StackedShifts(down, up, example.activation, down_bias, up_bias)


def _stack_biases(biases: Sequence[Tensor | None], zeros: Tensor) -> Tensor | None:
    """Return `[R, 1, size]`, padded to the size of `zeros`; None if no row has a bias."""
    if all(bias is None for bias in biases):
        return None
    padded = [zeros if bias is None else F.pad(bias, (0, len(zeros) - len(bias))) for bias in biases]
    return torch.stack(padded)[:, None]


def _compute_dtype(x: Tensor, adapter_dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of both products: autocast's if it is active, else the adapter's own."""
    # In decoding, asking autocast about a device type on every call takes too long.
    if not torch._C._is_any_autocast_enabled():  # pyright: ignore[reportPrivateUsage]  no public equivalent
        return adapter_dtype
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else adapter_dtype


def _is_plain_autograd() -> bool:
    """Return whether neither torch.func nor forward-mode differentiation is active."""
    functorch = torch._C._are_functorch_transforms_active()  # pyright: ignore[reportPrivateUsage]  no public equivalent
    forward_mode = torch.autograd.forward_ad._current_level >= 0  # pyright: ignore[reportPrivateUsage]  no equivalent
    return not (functorch or forward_mode)
