"""Sketches agree with exact sums."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from actshift.gradients.sketch import SIZE, ExactSum, Factors, Sketch

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
    assert torch.allclose(sketch.factors(ALL, rank).values, exact.factors(ALL, rank).values, rtol=1e-6)
    left, values, right = sketch.factors(ALL, rank)
    assert torch.allclose(left * values @ right.T, exact.matrix(ALL), atol=1e-8)
    for sums in (exact, sketch):
        assert torch.allclose(sums.along(ALL, sketch.factors(ALL, rank)), values, atol=1e-8)


@pytest.mark.parametrize(("decay", "error"), [(0.8, 1e-4), (0.95, 0.05)])
def test_the_leading_part_of_a_full_spectrum_is_approximated(decay, error):
    exact, sketch = both(*tokens(300, 200, 200, decay), pieces=3)
    assert torch.allclose(sketch.factors(ALL, 16).values, exact.factors(ALL, 16).values, rtol=error)
    gains = [sums.factors(ALL, 8).values.norm().item() for sums in (exact, sketch)]
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
        assert torch.allclose(sketch.factors(weights, 20).values, exact.factors(weights, 20).values, rtol=1e-6)


@pytest.mark.parametrize(("outputs", "inputs", "rank"), [(30, 70, 30), (70, 30, 12), (40, 40, 5)])
def test_exact_factors_are_those_of_an_svd_for_any_number_of_weighted_sums(outputs, inputs, rank):
    g, x = tokens(outputs, inputs, rank, 0.8)
    exact, sketch = ExactSum(g, x, groups=2), Sketch(g, x, groups=2)
    for sums in (exact, sketch):
        sums.add(0, g[:200], x[:200])
        sums.add(1, g[200:], x[200:])
    weights = torch.tensor([[1, 1], [0, 1], [0.5, 2]], dtype=torch.float64)
    factors = exact.factors(weights, rank + 2 if rank == 5 else rank)  # with directions of no gain
    for index, share in enumerate(weights):
        left, values, right = torch.linalg.svd(exact.matrix(share), full_matrices=False)
        assert torch.allclose(factors.values[index], values[: factors.values.shape[-1]], rtol=1e-9, atol=1e-12)
        overlaps = (left[:, :rank].T @ factors.left[index])[:, :rank] * (right[:rank] @ factors.right[index])[:, :rank]
        assert torch.allclose(overlaps.diagonal(), torch.ones(rank, dtype=torch.float64), rtol=1e-6)
        identity = torch.eye(factors.values.shape[-1], dtype=torch.float64)
        assert torch.allclose(factors.right[index].T @ factors.right[index], identity, atol=1e-9)
        for sums in (exact, sketch):
            assert torch.allclose(sums.along(weights, factors)[index], sums.along(share, Factors(
                factors.left[index], factors.values[index], factors.right[index])), atol=1e-9)  # fmt: skip


def test_memory_grows_linearly_with_the_width():
    for width in (1000, 2000):
        sketch = Sketch(torch.zeros(1, width), torch.zeros(1, width), groups=1)
        assert sketch.range.numel() + sketch.corange.numel() == 2 * SIZE * width


def test_two_sketches_of_the_same_data_agree():
    g, x = tokens(100, 70, 70, 0.9)
    assert torch.allclose(
        both(g, x, 2)[1].factors(ALL, 16).values, both(g, x, 2)[1].factors(ALL, 16).values, rtol=1e-12
    )
