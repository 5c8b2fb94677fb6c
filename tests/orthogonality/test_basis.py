"""Bases, projections and overlaps against an independent computation: numpy in float64, one matrix at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from actshift.orthogonality import (
    chance_overlap,
    orthonormal_basis,
    parseval_frame,
    principal_cosines,
    project_away,
    project_rows,
    violation,
)

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
SEEDS = st.integers(0, 2**31)


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def projector(columns: torch.Tensor, rank: int) -> np.ndarray:
    """Return the projection onto the leading `rank` directions of the columns, by the SVD."""
    left, *_ = np.linalg.svd(columns.double().numpy(), full_matrices=False)
    return left[:, :rank] @ left[:, :rank].T


def span(basis: torch.Tensor) -> np.ndarray:
    return (basis @ basis.mT).numpy()


@given(SEEDS, st.integers(1, 12), st.integers(1, 40), st.sampled_from(DTYPES))
def test_the_basis_spans_the_same_space_as_the_svd(seed, rank, width, dtype):
    columns = draw(seed, width, rank).to(dtype)
    basis = orthonormal_basis(columns)
    singular = np.linalg.svd(columns.double().numpy(), compute_uv=False)
    if singular[-1] < 1e-4 * singular[0]:  # the two can differ in its rank
        return
    np.testing.assert_allclose(span(basis), projector(columns, min(rank, width)), atol=1e-9)


@given(SEEDS, st.integers(1, 8), st.integers(1, 6), st.integers(16, 64))
def test_a_deficient_rank_gives_zero_columns_and_no_extra_direction(seed, rank, true_rank, width):
    true_rank = min(rank, true_rank)
    columns = (draw(seed, width, true_rank) @ draw(seed + 1, true_rank, rank)).float()  # rounding makes the rank full
    factor = np.linalg.cond(draw(seed + 1, true_rank, rank).numpy()) * np.linalg.cond(draw(seed, width, true_rank))
    if factor > 1e3:
        return
    basis = orthonormal_basis(columns)
    lengths = basis.norm(dim=0)
    assert sorted(lengths.round(decimals=9).tolist()) == [0.0] * (rank - true_rank) + [1.0] * true_rank
    np.testing.assert_allclose(span(basis), projector(columns, true_rank), atol=1e-3)


@given(SEEDS, st.lists(st.integers(-30, 30), min_size=1, max_size=6))
def test_the_scale_of_a_column_does_not_matter(seed, exponents):
    columns = draw(seed, 24, len(exponents)).float()
    scaled = columns * torch.tensor([10.0**e for e in exponents])
    np.testing.assert_allclose(span(orthonormal_basis(scaled)), projector(columns, len(exponents)), atol=1e-5)


@pytest.mark.parametrize("angle", [1e-1, 1e-3, 1e-5])
def test_nearly_parallel_columns_are_two_directions(angle):
    first, second = torch.eye(16, dtype=torch.float64)[:2]
    columns = torch.stack([first, first + angle * second], dim=1)
    np.testing.assert_allclose(span(orthonormal_basis(columns)), np.diag([1.0, 1.0] + [0.0] * 14), atol=1e-9)


def test_zero_and_repeated_columns_add_no_direction():
    column = draw(0, 10, 1).float()
    assert not orthonormal_basis(torch.zeros(10, 3)).any()
    repeated = orthonormal_basis(torch.cat([column, -3 * column, torch.zeros(10, 1)], dim=1))
    np.testing.assert_allclose(span(repeated), projector(column, 1), atol=1e-12)


def test_columns_that_are_not_finite_give_a_finite_basis():
    columns = torch.tensor([[float("nan"), 1.0], [float("inf"), 1.0]])
    assert torch.isfinite(orthonormal_basis(columns)).all()


@given(SEEDS, st.integers(1, 4), st.integers(1, 5))
def test_a_batch_equals_its_members(seed, layers, rank):
    columns = draw(seed, layers, 20, rank)
    columns[0, :, -1] = 0
    rows = draw(seed + 1, layers, 3, 20)
    together = project_rows(rows, orthonormal_basis(columns))
    for projected, row, column in zip(together, rows, columns, strict=True):
        torch.testing.assert_close(projected, project_rows(row, orthonormal_basis(column)), atol=1e-12, rtol=1e-12)


@given(SEEDS, st.integers(1, 8), st.integers(1, 8), st.sampled_from(DTYPES))
def test_projections_match_the_formula(seed, n, rank, dtype):
    rows, columns = draw(seed, n, 24).to(dtype), draw(seed + 1, 24, rank)
    basis = orthonormal_basis(columns)
    expected = torch.from_numpy(rows.double().numpy() @ (np.eye(24) - projector(columns, rank))).to(dtype)
    projected = project_rows(rows, basis)
    assert projected.dtype == dtype
    resolution = max(torch.finfo(dtype).eps, 1e-12)
    torch.testing.assert_close(projected, expected, atol=4 * resolution, rtol=4 * resolution)


def test_an_empty_span_leaves_the_rows_bit_identical():
    rows = torch.randn(4, 12)
    assert torch.equal(project_rows(rows, orthonormal_basis(torch.zeros(12, 3))), rows)


@given(SEEDS, st.integers(1, 6))
def test_a_row_within_the_span_becomes_exactly_zero(seed, rank):
    columns = draw(seed, 12, rank)
    assert not project_rows(draw(seed + 1, 3, rank) @ columns.mT, orthonormal_basis(columns)).any()


def test_nan_in_the_rows_is_kept():
    rows = torch.tensor([[float("nan"), 1.0], [1.0, 1.0]])
    assert project_rows(rows, orthonormal_basis(torch.eye(2)[:, :1])).isnan().any()


@given(SEEDS, st.integers(1, 8), st.integers(1, 6), st.sampled_from(["apart", "zero column", "deficient", "parallel"]))
def test_project_away_equals_projecting_with_the_basis(seed, rank, n, case):
    columns, rows = draw(seed, 3, 24, rank), draw(seed + 1, 3, n, 24)
    if case == "zero column":
        columns[1, :, 0] = 0
    elif case == "deficient":
        columns[1, :, -1] = columns[1, :, 0]
    elif case == "parallel":
        columns[1, :, -1] = columns[1, :, 0] + 1e-5 * columns[1, :, -1]
    expected = project_rows(rows, orthonormal_basis(columns))
    torch.testing.assert_close(project_away(rows, columns), expected, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(project_rows(rows, parseval_frame(columns)), expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("exponent", [-25, -22, -21, -19, -18, -10])
def test_frame_and_basis_count_the_same_directions(exponent):
    """Check on both sides of the limit √r · 2⁻²⁰, at least a factor of two away from it."""
    columns = torch.eye(16, dtype=torch.float64)[:, :2]
    columns[:, 1] = columns[:, 0] + 2.0**exponent * 2 * columns[:, 1]  # two unit columns: a direction of length 2^e √2
    np.testing.assert_allclose(span(parseval_frame(columns)), span(orthonormal_basis(columns)), atol=1e-9)


def test_a_frame_of_zero_or_non_finite_columns_is_finite():
    assert not parseval_frame(torch.zeros(10, 3)).any()
    assert torch.isfinite(parseval_frame(torch.tensor([[float("nan"), 1.0], [float("inf"), 1.0]]))).all()
    assert torch.equal(project_rows(rows := torch.randn(4, 12), parseval_frame(torch.zeros(12, 3))), rows)


def test_projecting_away_from_the_whole_space_leaves_zero():
    assert not project_away(torch.randn(4, 6), torch.randn(6, 9)).any()
    assert torch.equal(project_away(rows := torch.randn(4, 6), torch.full((6, 2), float("nan"))), rows)


@given(SEEDS, st.integers(1, 8), st.integers(1, 8))
def test_violation_is_the_largest_share_of_a_row_in_the_span(seed, n, rank):
    rows, columns = draw(seed, n, 20), draw(seed + 1, 20, rank)
    left, *_ = np.linalg.svd(columns.numpy(), full_matrices=False)
    shares = np.linalg.norm(rows.numpy() @ left, axis=1) / np.linalg.norm(rows.numpy(), axis=1)
    assert violation(rows, columns) == pytest.approx(shares.max(), abs=1e-9)


@given(SEEDS, st.floats(1e-20, 1e20), st.floats(1e-20, 1e20))
def test_violation_does_not_depend_on_scale(seed, first, second):
    rows, columns = draw(seed, 3, 16), draw(seed + 1, 16, 2)
    assert violation(first * rows, second * columns) == pytest.approx(violation(rows, columns), rel=1e-9)


@given(SEEDS)
def test_a_single_small_row_counts(seed):
    columns = draw(seed, 16, 2)
    clean = project_rows(draw(seed + 1, 3, 16), orthonormal_basis(columns))
    assert violation(clean, columns) < 1e-12
    clean[1] = 1e-9 * columns[:, 0]
    assert violation(clean, columns) == pytest.approx(1.0)


@given(SEEDS, st.integers(1, 16), st.sampled_from([(torch.float32, 2**-24), (torch.bfloat16, 2**-9)]))
def test_violation_after_a_projection_is_below_rounding(seed, rank, stored):
    dtype, rounding = stored
    columns = draw(seed, 64, rank).to(dtype)
    rows = project_rows(draw(seed + 1, 8, 64).to(dtype), orthonormal_basis(columns))
    assert violation(rows, columns) < rounding


def test_violation_of_zero_and_nan():
    assert violation(torch.zeros(2, 8), torch.randn(8, 2)) == 0
    assert violation(torch.randn(2, 8), torch.zeros(8, 2)) == 0
    assert math.isnan(violation(torch.full((2, 8), float("nan")), torch.randn(8, 2)))


@given(SEEDS, st.integers(1, 6), st.integers(1, 6))
def test_cosines_match_those_of_qr_bases(seed, n, rank):
    rows, columns = draw(seed, n, 20), draw(seed + 1, 20, rank)
    left, right = np.linalg.qr(rows.numpy().T)[0], np.linalg.qr(columns.numpy())[0]
    expected = np.linalg.svd(left.T @ right, compute_uv=False)
    np.testing.assert_allclose(principal_cosines(rows, columns).numpy(), expected, atol=1e-9)


@given(st.lists(st.floats(0.0, 90.0), min_size=1, max_size=5))
def test_angles_match_known_angles(angles):
    count = len(angles)
    radians = torch.tensor(angles, dtype=torch.float64).deg2rad()
    basis = torch.eye(2 * count, dtype=torch.float64)
    columns = basis[:, :count] * radians.cos() + basis[:, count:] * radians.sin()
    computed = principal_cosines(draw(0, count, count) @ basis[:count], columns).arccos().rad2deg()
    np.testing.assert_allclose(computed.numpy(), sorted(angles), atol=1e-4)


def test_a_zero_matrix_has_no_angles():
    assert principal_cosines(torch.randn(3, 8), torch.zeros(8, 2)).tolist() == []


def test_chance_overlap_matches_random_subspaces():
    cosines = [principal_cosines(draw(seed, 4, 32), draw(seed + 1000, 32, 6)).square().mean() for seed in range(200)]
    assert torch.stack(cosines).mean().item() == pytest.approx(chance_overlap(4, 6, 32), rel=0.05)
