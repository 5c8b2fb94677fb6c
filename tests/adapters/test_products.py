"""Low-rank maps of many rows at once, against each row by itself."""

from __future__ import annotations

import pytest
import torch

from actshift.adapters import LoReFT, LowRank, Vector
from actshift.adapters.functional import stacked

WIDTH = 12


def drawn(adapter, seed):
    draw = torch.Generator().manual_seed(seed)
    shift = adapter.build(WIDTH).double()
    with torch.no_grad():
        for parameter in shift.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw))
    return shift


@pytest.mark.parametrize(
    "adapters",
    [
        {0: LowRank(rank=3), 1: LowRank(rank=3), 3: LowRank(rank=3)},
        {1: LowRank(rank=1, activation="tanh", bias=True), 2: LowRank(rank=5, activation="tanh")},
        {0: Vector(), 1: LowRank(rank=2, activation=None), 2: LoReFT(rank=3)},
        {0: Vector(), 3: Vector()},
    ],
    ids=["alike", "ranks", "kinds", "vectors"],
)
def test_rows_are_each_their_own(adapters):
    shifts = {row: drawn(adapter, row) for row, adapter in adapters.items()}
    strengths = {row: 1.0 - 0.7 * row for row in shifts}
    base, x = torch.randn(2, 4, 5, WIDTH, dtype=torch.float64).unbind()
    x.requires_grad_()
    product = stacked({row: (shift.factors(), strengths[row]) for row, shift in shifts.items()}, count=4)
    sums = product.add(base, x)
    expected = torch.stack(
        [base[row] + strengths[row] * shifts[row](x[row]) if row in shifts else base[row] for row in range(4)]
    )
    torch.testing.assert_close(sums, expected)
    assert all(torch.equal(sums[row], base[row]) for row in range(4) if row not in shifts)
    torch.testing.assert_close(product.of_rows([3, 0]).add(base[[3, 0]], x[[3, 0]]), expected[[3, 0]])
    if any(not isinstance(adapter, Vector) for adapter in adapters.values()):
        torch.testing.assert_close(*(torch.autograd.grad(y.square().sum(), x)[0] for y in (sums, expected)))


def test_in_bfloat16_the_dtype_of_the_stream_stays():
    product = stacked({0: (LowRank(rank=2).build(WIDTH).factors(), 1.0)}, count=1)
    x = torch.randn(1, 3, WIDTH, dtype=torch.bfloat16)
    assert torch.equal(product.add(x, x), x)
