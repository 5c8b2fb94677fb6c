from __future__ import annotations

from dataclasses import replace

import pytest

from actshift import ActshiftError, attach
from actshift.analysis.extract import LayerFit, ModelPair, extract
from actshift.analysis.extract.distill import validation_kl
from actshift.analysis.extract.fit import config_for, fit_layers, ranks_within
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
