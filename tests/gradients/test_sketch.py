"""Sketches agree with exact sums."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from actshift.gradients.sketch import SIZE, ExactSum, Sketch

ALL = torch.ones(1, dtype=torch.float64)


def tokens(outputs: int, inputs: int, rank: int, decay: float, count: int = 400) -> tuple[torch.Tensor, torch.Tensor]:
    """Return g and x whose Σ g xᵀ has the singular values 1, decay, decay², …"""
    generator = torch.Generator().manual_seed(rank)
    mixed = torch.linalg.qr(torch.randn(count, rank, generator=generator, dtype=torch.float64)).Q
    left = torch.linalg.qr(torch.randn(outputs, rank, generator=generator, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(inputs, rank, generator=generator, dtype=torch.float64)).Q
    return mixed * decay ** torch.arange(rank) @ left.T, mixed @ right.T


def both(g: torch.Tensor, x: torch.Tensor, pieces: int) -> tuple[ExactSum, Sketch]:
    exact, sketch = ExactSum(g, x, groups=1), Sketch(g, x, groups=1)
    for some_g, some_x in zip(g.chunk(pieces), x.chunk(pieces), strict=True):
        exact.add(0, some_g, some_x)
        sketch.add(0, some_g, some_x)
    return exact, sketch


@settings(max_examples=15)
@given(
    outputs=st.integers(SIZE, 150), inputs=st.integers(SIZE, 150), rank=st.integers(1, SIZE), pieces=st.integers(1, 5)
)
def test_a_low_rank_matrix_is_recovered_exactly_from_any_number_of_batches(outputs, inputs, rank, pieces):
    exact, sketch = both(*tokens(outputs, inputs, rank, decay=0.95), pieces)
    assert torch.allclose(sketch.values(ALL, rank), exact.values(ALL, rank), rtol=1e-6)
    left, values, right = sketch.factors(ALL, rank)
    assert torch.allclose(left * values @ right.T, exact.matrix(ALL), atol=1e-8)
    for sums in (exact, sketch):
        assert torch.allclose(sums.along(ALL, sketch.factors(ALL, rank)), values, atol=1e-8)


@pytest.mark.parametrize(("decay", "error"), [(0.8, 1e-4), (0.95, 0.05)])
def test_the_leading_part_of_a_full_spectrum_is_approximated(decay, error):
    exact, sketch = both(*tokens(300, 200, 200, decay), pieces=3)
    assert torch.allclose(sketch.values(ALL, 16), exact.values(ALL, 16), rtol=error)
    gains = [sums.values(ALL, 8).norm().item() for sums in (exact, sketch)]
    assert gains[1] == pytest.approx(gains[0], rel=error / 5)
    overlap = sketch.factors(ALL, 4).right.T @ exact.factors(ALL, 4).right
    assert torch.linalg.svdvals(overlap).min() > 1 - error


def test_weighted_sums_of_groups_agree_with_the_exact_sums():
    g, x = tokens(90, 80, 20, 0.9)
    exact, sketch = ExactSum(g, x, groups=2), Sketch(g, x, groups=2)
    for group, (some_g, some_x) in enumerate(zip(g.chunk(2), x.chunk(2), strict=True)):
        exact.add(group, some_g, some_x)
        sketch.add(group, some_g, some_x)
    for shares in ([1, 1], [1, 0], [0.5, 2]):
        weights = torch.tensor(shares, dtype=torch.float64)
        assert torch.allclose(sketch.values(weights, 20), exact.values(weights, 20), rtol=1e-6)


def test_memory_grows_linearly_with_the_width():
    for width in (1000, 2000):
        sketch = Sketch(torch.zeros(1, width), torch.zeros(1, width), groups=1)
        assert sketch.range.numel() + sketch.corange.numel() == 2 * SIZE * width


def test_two_sketches_of_the_same_data_agree():
    g, x = tokens(100, 70, 70, 0.9)
    assert torch.allclose(both(g, x, 2)[1].values(ALL, 16), both(g, x, 2)[1].values(ALL, 16), rtol=1e-12)
