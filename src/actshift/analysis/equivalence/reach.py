"""What steering before the MLP can copy of a shift of its output: the part in the column space of A(x)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import jvp, vjp

FORMED = 256
"""Up to this width A(x) is formed and decomposed; above it, least squares are solved by conjugate gradients."""
STEPS = 200
SINGULAR = 1e-10
"""Singular values below this share of the largest count as zero."""


@dataclass(frozen=True)
class Copy:
    """The best shift of x, `moved`, of least norm, and what it gives of y to first order, `copied`; `[..., d]` both."""

    moved: Tensor
    copied: Tensor


def reach(
    function: Callable[[Tensor], Tensor], x: Tensor, shift: Tensor, chosen: Tensor | None = None, formed: int = FORMED
) -> Copy:
    """Solve min ‖A(x) Δx - shift‖ for every token, with A(x) = ∂y/∂x of the token-wise `function`.

    `x` and `shift` are `[..., d]`, and `chosen` `[...]` bool tells which tokens are asked about. Above
    the width `formed` no A is formed: its products and those of Aᵀ come from forward- and reverse-mode
    differentiation, all tokens at once.
    Source: arXiv 2603.00425, eq. 2 and what follows it.

    >>> x = torch.ones(1, 2, dtype=torch.float64)
    >>> reach(lambda x: x * torch.tensor([1.0, 0.0]), x, torch.tensor([[3.0, 4.0]]).double()).copied
    tensor([[3., 0.]], dtype=torch.float64)
    """
    pull = vjp(function, x)[1]

    def forwards(direction: Tensor) -> Tensor:
        return jvp(function, (x,), (direction,))[1]

    def backwards(direction: Tensor) -> Tensor:
        return pull(direction, retain_graph=True)[0]

    if chosen is None:
        chosen = torch.ones(x.shape[:-1], dtype=torch.bool, device=x.device)
    if x.shape[-1] <= formed:
        moved = torch.zeros_like(x)
        moved[chosen] = _by_decomposition(backwards, shift, chosen)
    else:
        moved = _by_conjugate_gradients(forwards, backwards, shift)
    return Copy(moved, forwards(moved))


def _by_decomposition(backwards: Callable[[Tensor], Tensor], shift: Tensor, chosen: Tensor) -> Tensor:
    rows = []
    for coordinate in range(shift.shape[-1]):
        unit = torch.zeros_like(shift)
        unit[..., coordinate] = 1
        rows.append(backwards(unit)[chosen])
    matrix = torch.stack(rows, dim=-2)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    kept = values > SINGULAR * values[..., :1].clamp(min=torch.finfo(values.dtype).tiny)
    code = (left.mT @ shift[chosen][..., None])[..., 0]
    code = torch.where(kept, code / values, torch.zeros_like(code))
    return (right.mT @ code[..., None])[..., 0]


def _by_conjugate_gradients(
    forwards: Callable[[Tensor], Tensor], backwards: Callable[[Tensor], Tensor], shift: Tensor
) -> Tensor:
    """CGLS (Björck, 1996), with a step length of its own for each token."""
    residual = shift.clone()
    gradient = backwards(residual)
    moved = torch.zeros_like(gradient)
    direction, size = gradient.clone(), _square(gradient)
    first = size.clone()
    for _ in range(STEPS):
        if not (size > 1e-24 * first).any():
            break
        image = forwards(direction)
        length = _ratio(size, _square(image))
        moved = moved + length * direction
        residual = residual - length * image
        gradient = backwards(residual)
        size, before = _square(gradient), size
        direction = gradient + _ratio(size, before) * direction
    return moved


def _square(values: Tensor) -> Tensor:
    return values.square().sum(-1, keepdim=True)


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    return torch.where(below > 0, above / below.clamp(min=torch.finfo(below.dtype).tiny), torch.zeros_like(above))
