"""Violation and principal angles against numpy."""

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
    principal_cosines,
    project_rows,
    violation,
)
from tests.orthogonality.test_basis import SEEDS, draw


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
