from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from actshift import ActshiftError
from actshift.analysis.regression import Affine, Moments, best_fit, reduced_rank_maps


def _data(seed: int, tokens: int, mean: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, 6, generator=generator, dtype=torch.float64) + mean
    y = x @ torch.randn(6, 4, generator=generator, dtype=torch.float64)
    return x, y + torch.randn(tokens, 4, generator=generator, dtype=torch.float64)


def _moments(x: torch.Tensor, y: torch.Tensor, parts: int = 3) -> Moments:
    moments = Moments()
    for part_x, part_y in zip(x.chunk(parts), y.chunk(parts), strict=True):
        moments.add(part_x, part_y)
    return moments


@given(st.integers(0, 1000), st.integers(0, 4), st.sampled_from([0.0, 1e-3, 1.0]))
def test_reduced_rank_ridge_is_a_minimum(seed: int, rank: int, ridge: float) -> None:
    x, y = _data(seed, 40)
    moments = _moments(x, y)
    [(_, _, best)] = reduced_rank_maps(moments, [rank], [ridge])
    penalty = ridge * moments.covariances()[0].trace() / 6

    def loss(fit: Affine) -> float:
        return moments.error(fit) + float(penalty * (fit.up @ fit.down).square().sum())

    assert moments.error(best) == pytest.approx((y - best(x)).square().sum(-1).mean().item(), rel=1e-8)
    generator = torch.Generator().manual_seed(seed)
    for size in (1e-3, 0.1):
        noise = [
            size * torch.randn(part.shape, generator=generator).double() for part in (best.down, best.up, best.bias)
        ]
        assert loss(best) <= loss(Affine(best.down + noise[0], best.up + noise[1], best.bias + noise[2])) + 1e-9


def test_full_rank_without_ridge_is_least_squares() -> None:
    x, y = _data(0, 50)
    [(_, _, fit)] = reduced_rank_maps(_moments(x, y), [4], [0.0])
    with_ones = torch.cat([x, torch.ones(50, 1)], 1)
    torch.testing.assert_close(fit(x), with_ones @ torch.linalg.lstsq(with_ones, y).solution)


def test_centred_sums_keep_small_variances_next_to_huge_values_in_float32() -> None:
    x, y = _data(0, 60)
    huge = torch.full((60, 1), 1e4, dtype=torch.float64)
    narrow = _moments(torch.cat([x, huge], 1).float(), y.float())
    wide = _moments(torch.cat([x, huge], 1), y)
    torch.testing.assert_close(narrow.covariances()[0], wide.covariances()[0], rtol=1e-4, atol=1e-4)


def test_energy_is_the_sum_of_the_spectrum() -> None:
    x, y = _data(1, 30)
    moments = _moments(x, y)
    assert moments.energy == pytest.approx(y.square().sum(-1).mean().item())
    assert sum(moments.spectrum()) == pytest.approx(moments.energy)


def test_best_fit_chooses_the_ridge_with_the_least_validation_error() -> None:
    (x, y), (other_x, other_y) = _data(2, 8), _data(2, 200)
    fitted, validation = _moments(x, y), _moments(other_x, other_y)
    ridges = (0.0, 1e-2, 10.0)
    best = best_fit(fitted, validation, [2], ridges)[2]
    errors = {ridge: validation.error(fit) for _, ridge, fit in reduced_rank_maps(fitted, [2], ridges)}
    assert best.error == min(errors.values()) == errors[best.ridge]


def test_too_few_tokens_and_infinite_values_are_rejected() -> None:
    with pytest.raises(ActshiftError, match="1 tokens to fit and 0"):
        best_fit(_moments(*_data(0, 1), parts=1), Moments(), [1])
    with pytest.raises(ActshiftError, match="not finite"):
        Moments().add(torch.tensor([[float("inf")]]), torch.zeros(1, 1))
