from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from actshift import ActshiftError, SteeringConfig, attach
from actshift.analysis.extract import LayerFit, ModelPair, distill, extract
from actshift.analysis.extract.fit import check_rate, config_for, fit_layers, ranks_within, validation_kl
from actshift.tuner import steering_layers
from tests.analysis.extract.conftest import FAST, TEXT, with_changed_blocks, with_changed_later_blocks
from tests.zoo import WIDTH


def test_each_layer_is_fitted_on_the_stream_that_earlier_layers_steer() -> None:
    # The first block needs no adapter, so the second one's regression has the input of the oracle's.
    report = extract(*with_changed_later_blocks(), TEXT, rank=4, **FAST).report
    assert report.layers[0].r2 == 0
    assert report.layers[1].r2 == pytest.approx(report.oracle.layers[1].r2[4], abs=1e-6)


def test_a_budget_is_spent_on_the_layers_with_an_oracle_shift() -> None:
    report = extract(*with_changed_later_blocks(), TEXT, budget=400, **FAST).report
    assert 400 - (3 * WIDTH + 1) < report.parameters <= 400
    assert 0 not in [layer.layer for layer in report.layers]
    with pytest.raises(ActshiftError, match="A budget of 20 parameters buys no rank"):
        ranks_within(20, report.oracle, WIDTH)


def test_finished_layers_are_kept() -> None:
    base, finetuned = with_changed_blocks()
    ranks, pair = dict.fromkeys(range(3), 1), ModelPair.of(base, finetuned)
    pair = replace(pair, base=attach(base, config_for(ranks)))
    done = {0: LayerFit(0, 1, 0.5, 0.25)}
    reported: list[set[int]] = []
    fits = fit_layers(pair, TEXT, ranks, done, on_layer=lambda fits: reported.append(set(fits)))
    assert fits[0] == done[0] and len(fits) == 3
    assert reported == [{0, 1}, {0, 1, 2}]
    assert validation_kl(pair, TEXT) > 0


def _steered_pair() -> ModelPair:
    base, finetuned = with_changed_blocks()
    pair = ModelPair.of(base, finetuned)
    return replace(pair, base=attach(base, SteeringConfig(rank=2)))


def test_distillation_returns_the_validation_kl_of_the_best_state() -> None:
    pair, steps = _steered_pair(), []
    before = validation_kl(pair, TEXT)
    after = distill(pair, TEXT, steps=60, learning_rate=1e-2, on_step=lambda: steps.append(1))
    assert after < before and after == validation_kl(pair, TEXT)
    assert len(steps) == 60


def test_the_initial_state_is_kept_if_no_later_one_is_better() -> None:
    pair = _steered_pair()
    parameters = [p for layer in steering_layers(pair.base).values() for p in layer.parameters()]
    parameters[0].requires_grad_(False)
    before = [p.detach().clone() for p in parameters]
    kl = validation_kl(pair, TEXT)
    assert distill(pair, TEXT, steps=3, learning_rate=100.0) == kl
    assert all(torch.equal(p, old) for p, old in zip(parameters, before, strict=True))
    assert [p.requires_grad for p in parameters] == [False] + [True] * (len(parameters) - 1)
    assert all(p.grad is None for p in parameters)


def test_a_distillation_that_diverges_is_reported() -> None:
    pair = _steered_pair()
    with torch.no_grad():
        next(iter(steering_layers(pair.base).values())).lora_steer["default"].up.weight.fill_(float("nan"))
    with pytest.raises(ActshiftError, match="diverged; use a lower learning rate"):
        distill(pair, TEXT, steps=1)


def test_a_distillation_that_diverges_in_its_last_step_is_reported() -> None:
    pair = _steered_pair()
    with pytest.raises(ActshiftError, match=r"diverged; use a lower learning rate \(it was 1e\+38\)"):
        distill(pair, TEXT, steps=1, learning_rate=1e38)


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf, 1e39])
def test_learning_rates_without_a_meaning_are_refused(rate: float) -> None:
    with pytest.raises(ActshiftError, match="learning rate must be above 0"):
        check_rate(rate)
