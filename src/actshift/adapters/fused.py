"""The switch for the fused kernels (`kernels.py`), which tensors they take, and their calls."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from actshift.adapters.factors import Factors
from actshift.errors import ActshiftError, require

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
LARGEST_RANK = 128
"""Above it the products cost more than the reading and writing that fusing them saves."""

_kernels: Any = None  # the module, where they are switched on


def fused_kernels(on: bool = True) -> None:
    """Let one Triton kernel compute `x + s·Δ(x)` on CUDA devices, and one the gradient of x; off by default.

    It is for low-rank adapters after a block, and for batches whose rows have adapters of their own, in bfloat16,
    float16 and float32. What it does not take is computed as it is without: float64, ranks above 128, a gradient of
    the gradient, torch.func, torch.compile (which fuses the plain formula by itself). Results differ by rounding.
    The kernels were written without a CUDA device at hand and are unmeasured: compare before you rely on them.

    Raises ActshiftError where there is no CUDA device, or triton is not installed.
    Source: [ours].

    >>> fused_kernels(False)
    """
    global _kernels
    if not on:
        _kernels = None
        return
    if not (torch.cuda.is_available() or _is_interpreted()):
        raise ActshiftError(
            "fused_kernels needs a CUDA device, and torch finds none; leave it off, the plain path computes the same."
        )
    require("triton", extra="kernels")
    from actshift.adapters import kernels

    _kernels = kernels


def takes(x: Tensor, factors: Factors, *others: Tensor) -> bool:
    """Whether the kernels are switched on and can compute with these; that autograd looks on is not asked here."""
    if _kernels is None or torch.compiler.is_compiling() or not is_plain_autograd():
        return False
    kind = "cpu" if _is_interpreted() else "cuda"
    tensors = [x, factors.down, factors.up, factors.down_bias, factors.up_bias, *others]
    return 0 < factors.down.shape[-2] <= LARGEST_RANK and all(
        one is None or (type(one) in (Tensor, Parameter) and one.dtype in DTYPES and one.device.type == kind)
        for one in tensors
    )


def is_plain_autograd() -> bool:
    """Whether neither torch.func nor forward-mode differentiation is at work."""
    return not (torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0)


def sum_and_code(
    base: Tensor, x: Tensor, factors: Factors, strength: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return `base + s·Δ(x)` in base's shape and dtype, and z `[..., r]` in `dtype`.

    `base` and `x` are `[tokens, d]`, or `[rows, tokens, d]` with factors stacked by rows.
    """
    base, x = base.contiguous(), x.contiguous()
    out, z = torch.empty_like(base), x.new_empty(*x.shape[:-1], factors.down.shape[-2], dtype=dtype)
    _launch(x, base, out, z, None, factors, strength)
    return out, z


def delta_and_gradient(gradient: Tensor, z: Tensor, factors: Factors, strength: float) -> tuple[Tensor, Tensor]:
    """Return δ `[tokens, r]`, which is z's gradient, and that of x `[tokens, d]`, from that of the sum."""
    gradient = gradient.contiguous()
    out, delta = torch.empty_like(gradient), torch.empty_like(z)
    exchanged = Factors(factors.up.mT, factors.down.mT, factors.activation)
    _launch(gradient, gradient, out, z, delta, exchanged, strength)
    return delta, out


def _launch(
    x: Tensor, base: Tensor, out: Tensor, z: Tensor, delta: Tensor | None, factors: Factors, strength: float
) -> None:
    if not out.numel():
        return
    reads, writes = _packed(factors.down), _packed(factors.up.mT)
    down_bias, up_bias = (None if bias is None else bias.contiguous() for bias in (factors.down_bias, factors.up_bias))
    rank, width = reads.shape[-2:]
    rows, tokens = (1, *x.shape[:-1])[-2:]
    padded = max(16, 1 << (rank - 1).bit_length())  # a side of a product is a power of two, and 16 at least
    # What all programs work on at a time is to stay in the L2 cache until it is read again.
    processors = torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 2
    programs = max(1, processors * (2 if width <= 2048 else 1) // rows)
    size = 32 if tokens > 32 * programs else 16
    with torch.cuda.device_of(x):
        _kernels.through_the_code[min(-(-tokens // size), programs), rows](
            x, base, out, z, delta, reads, writes, down_bias, up_bias, float(strength), tokens, width, rank,
            *reads.stride()[-2:], *writes.stride()[-2:],
            ACTIVATION=factors.activation,
            PRECISION="ieee" if z.dtype == torch.float32 else None,  # else the device's own, exact for 16 bits
            TOKENS=size, WIDTH=2048 // padded, RANK=padded,
        )  # fmt: skip


def _packed(tensor: Tensor) -> Tensor:
    """Return it without gaps: its rows or its columns one after another."""
    return tensor if tensor.is_contiguous() or tensor.mT.is_contiguous() else tensor.contiguous()


def _is_interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"
