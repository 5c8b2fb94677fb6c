from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from actshift.analysis.contrast.contrast import METHODS, mean_difference, principal_difference, separation

SHAPES = st.tuples(st.integers(2, 9), st.integers(1, 9), st.integers(0, 10_000))


def sides(shape: tuple[int, int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    rows, width, seed = shape
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(rows, width, generator=draw) + 0.5, torch.randn(rows, width, generator=draw)


@given(SHAPES)
def test_pca_is_the_mean_difference_along_the_first_right_singular_vector(shape):
    positive, negative = sides(shape)
    differences = (positive - negative).double()
    _, values, axes = torch.linalg.svd(differences, full_matrices=False)
    if len(values) > 1 and values[1] > 0.99 * values[0]:
        return  # two axes as good as each other
    wanted = axes[0] * (axes[0] @ differences.mean(0))
    assert torch.allclose(principal_difference(positive, negative).double(), wanted, atol=1e-5)


@given(SHAPES, st.sampled_from(sorted(METHODS)))
def test_it_points_from_negative_to_positive_and_is_as_long_as_they_are_apart(shape, method):
    positive, negative = sides(shape)
    v = METHODS[method](positive, negative)
    apart = (positive @ v).mean() - (negative @ v).mean()
    assert apart >= -1e-5
    if v.norm() > 1e-3:
        assert apart / v.norm() == pytest.approx(v.norm().item(), rel=1e-3)
    assert torch.allclose(METHODS[method](negative, positive), -v, atol=1e-5)


def test_pca_leaves_out_what_differs_in_one_pair_only():
    torch.manual_seed(0)
    truth, noise = torch.zeros(8), torch.randn(40, 8)
    truth[0] = 4.0
    negative = torch.randn(40, 8)
    found = principal_difference(negative + truth + 0.3 * noise, negative)
    assert torch.cosine_similarity(found, truth, dim=0) > 0.99


@pytest.mark.parametrize("method", sorted(METHODS))
def test_separation_is_held_out(method):
    torch.manual_seed(0)
    noise = torch.randn(20, 400), torch.randn(20, 400)  # the fit itself would tell them apart without fault
    v = METHODS[method](*noise)
    assert ((noise[0] @ v).min() > (noise[1] @ v).max()) or method == "pca"
    assert 0.25 < separation(*noise, METHODS[method]) < 0.75
    assert separation(noise[0] + 2.0, noise[1], METHODS[method]) == 1.0


def test_separation_counts_both_sides_alike():
    positive, negative = torch.ones(30, 1), torch.zeros(3, 1)
    assert separation(positive, negative, mean_difference) == 1.0
    assert separation(torch.ones(30, 1), torch.ones(3, 1), mean_difference) == 0.0  # on the threshold is on no side
