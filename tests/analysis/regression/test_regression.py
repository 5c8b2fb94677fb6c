from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from actshift import ActshiftError
from actshift.analysis.regression import Affine, Moments, ReducedRank, best_fit


def _data(seed: int, tokens: int, mean: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, 6, generator=draw, dtype=torch.float64) + mean
    y = x @ torch.randn(6, 4, generator=draw, dtype=torch.float64)
    return x, y + torch.randn(tokens, 4, generator=draw, dtype=torch.float64)


def _moments(x: torch.Tensor, y: torch.Tensor, parts: int = 3) -> Moments:
    moments = Moments()
    for a, b in zip(x.chunk(parts), y.chunk(parts), strict=True):
        moments.add(a, b)
    return moments


@given(st.integers(0, 1000), st.integers(0, 4), st.sampled_from([0.0, 1e-3, 1.0]))
def test_no_map_of_that_rank_does_better(seed: int, rank: int, ridge: float) -> None:
    x, y = _data(seed, 40)
    moments = _moments(x, y)
    best = ReducedRank(moments)(rank, ridge)
    penalty = ridge * moments.covariances()[0].trace() / 6

    def loss(fit: Affine) -> float:
        return moments.error(fit) + float(penalty * (fit.up @ fit.down).square().sum())

    assert moments.error(best) == pytest.approx((y - best(x)).square().sum(-1).mean().item(), rel=1e-8)
    draw = torch.Generator().manual_seed(seed)
    for size in (1e-3, 0.1):
        noise = [size * torch.randn(part.shape, generator=draw).double() for part in (best.down, best.up, best.bias)]
        other = Affine(best.down + noise[0], best.up + noise[1], best.bias + noise[2])
        assert loss(best) <= loss(other) + 1e-9


def test_full_rank_without_a_ridge_is_least_squares() -> None:
    x, y = _data(0, 50)
    fit = ReducedRank(_moments(x, y))(4, 0.0)
    padded = torch.cat([x, torch.ones(50, 1)], 1)
    torch.testing.assert_close(fit(x), padded @ torch.linalg.lstsq(padded, y).solution)


def test_sums_are_about_the_mean_and_so_keep_small_variances_in_float32() -> None:
    x, y = _data(0, 60)
    huge = torch.full((60, 1), 1e4, dtype=torch.float64)
    narrow = _moments(torch.cat([x, huge], 1).float(), y.float())
    wide = _moments(torch.cat([x, huge], 1), y)
    torch.testing.assert_close(narrow.covariances()[0], wide.covariances()[0], rtol=1e-4, atol=1e-4)


def test_energy_is_that_of_the_spectrum() -> None:
    x, y = _data(1, 30)
    moments = _moments(x, y)
    assert moments.energy == pytest.approx(y.square().sum(-1).mean().item())
    assert sum(moments.spectrum()) == pytest.approx(moments.energy)


def test_the_ridge_is_the_one_that_does_best_on_held_out_tokens() -> None:
    (x, y), (other, answer) = _data(2, 8), _data(2, 200)
    seen, held_out = _moments(x, y), _moments(other, answer)
    ridges = (0.0, 1e-2, 10.0)
    best = best_fit(seen, held_out, [2], ridges)[2]
    errors = {ridge: held_out.error(ReducedRank(seen)(2, ridge)) for ridge in ridges}
    assert best.error == min(errors.values()) == errors[best.ridge]


def test_too_little_and_too_large_are_told() -> None:
    with pytest.raises(ActshiftError, match="1 tokens to fit and 0"):
        best_fit(_moments(*_data(0, 1), parts=1), Moments(), [1])
    with pytest.raises(ActshiftError, match="not finite"):
        Moments().add(torch.tensor([[float("inf")]]), torch.zeros(1, 1))
