"""What a report says, prints, draws and buys."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math

import pytest
import torch

from actshift import ActshiftError, SteeringConfig, attach, locate, token_batches
from actshift.analysis.locate import Estimate
from actshift.analysis.locate.rendering import per_parameter
from actshift.analysis.locate.report import together
from tests.gradients.parity import batch_of, batches_of, model_of
from tests.tiny import word_tokenizer


def test_the_jackknife_of_a_mean_is_its_standard_error():
    values = torch.randn(10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    without = tuple(((values.sum() - value) / 9).item() for value in values)
    estimate = Estimate(values.mean().item(), without)
    assert estimate.error == pytest.approx((values.std() / 10**0.5).item())
    assert not estimate.minus(estimate).clear
    assert Estimate(1.0).error is None and not Estimate(1.0).clear


def test_a_difference_is_told_better_than_its_sides():
    """What moves both alike moves their difference little."""
    one = Estimate(10.0, (9.0, 10.0, 11.0))
    other = Estimate(9.5, (8.5, 9.5, 10.5))
    assert one.error > 1 and one.minus(other).clear
    assert together([Estimate(3.0, (3.0, 0.0)), Estimate(4.0, (4.0, 1.0))]).without == (5.0, 1.0)


def test_the_spread_is_that_of_other_data():
    """The stated standard error against the spread over independent draws of as many batches."""
    model = model_of()
    draws = [[batch_of(2, 9, 3, seed=100 * draw + number) for number in range(8)] for draw in range(12)]
    gains = [locate(model, draw, ["post_block"], [1], rank=2, weights=False).places[0].gain(2) for draw in draws]
    spread = torch.tensor([gain.value for gain in gains]).std().item()
    stated = torch.tensor([gain.error for gain in gains]).mean().item()
    assert 0.4 < stated / spread < 2.5


def test_what_is_learnt_by_heart_does_not_hold_elsewhere():
    """On random words a gain is chance; where every row is alike, all of it holds."""
    chance = locate(model_of(), [batch_of(2, 9, 3, seed=number) for number in range(8)], rank=4)
    same = locate(model_of(), [batch_of(2, 9, 3)] * 8, rank=4)
    assert chance.held_out < 0.6 and "the rest is chance: give more rows" in str(chance)
    assert same.held_out == pytest.approx(1) and "100% of the gains hold" in str(same)
    assert same.places[0].held_out == pytest.approx([same.places[0].gain(rank).value for rank in range(1, 5)])
    assert locate(model_of(), batches_of(1), rank=1).held_out is None


def test_gains_rise_with_the_rank_and_add_in_squares(report):
    for place in report.places:
        gains = [place.gain(rank).value for rank in range(1, 5)]
        assert gains == sorted(gains) and len(place.singular_values) == 4
        assert gains[-1] == pytest.approx(math.sqrt(sum(value**2 for value in place.singular_values)))
    assert report.ranks == (1, 2, 4) and report.groups == 6 and report.batches == 6
    best = report.methods[0]
    assert all(best.per_parameter.value >= method.per_parameter.value for method in report.methods)


def test_it_prints_and_goes_to_json(report):
    text = str(report)
    for word in ("post_block", "post_attention", "c_attn", "layer", "±", "r=1", f"{report.targets:,} targets"):
        assert word in text
    values = json.loads(json.dumps(report.to_dict()))
    assert len(values["places"]) == 3 * (3 + 4)
    first = values["places"][0]
    assert first["gains"]["1"]["per_parameter"] == pytest.approx(first["singular_values"][0] / 64)
    assert set(first["gains"]) == {"vector", "1", "2", "4"}
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.rank = 1


def test_it_draws_itself(report, tmp_path):
    for number, figure in enumerate((report.figure(), per_parameter(report))):
        for ending in ("png", "svg"):
            path = tmp_path / f"{number}.{ending}"
            figure.savefig(path)
            assert path.stat().st_size > 5000


def spent_on(report, config) -> tuple[int, float]:
    """The parameters of a config's model, and the Σσ² that its ranks have."""
    model = attach(model_of(), config)
    squares = sum(
        value**2
        for one in config.all_interventions
        for place in report.at(one.site)
        if place.layer in one.layers
        for value in place.singular_values[: one.adapter.rank]
    )
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad), squares


def test_a_budget_is_kept_and_spent_at_best(report):
    """Against every other way to spend it on the three sites of one block."""
    small = dataclasses.replace(report, places=tuple(p for p in report.places if p.layer == 1 and not p.weight))
    for ranks in (1, 2, 4, 5, 7):
        parameters, squares = spent_on(small, small.to_config(ranks * 64 + 63))
        assert parameters == ranks * 64
        ways = [way for way in itertools.product(range(5), repeat=3) if sum(way) <= ranks]
        best = max(
            sum(
                value**2
                for place, rank in zip(small.places, way, strict=True)
                for value in place.singular_values[:rank]
            )
            for way in ways
        )
        assert squares == pytest.approx(best)


def test_a_share_is_of_the_models_parameters(report):
    config = report.to_config(0.02, activation=None, task_type="CAUSAL_LM", init="gradient")
    parameters, _ = spent_on(report, config)
    assert 0.02 * report.parameters - 64 < parameters <= 0.02 * report.parameters
    assert {one.adapter.activation for one in config.all_interventions} == {None}
    assert {one.adapter.init for one in config.all_interventions} == {"gradient"}
    assert config.task_type == "CAUSAL_LM"
    assert SteeringConfig(**config.steering_dict()).all_interventions == config.all_interventions


def test_more_than_all_ranks_cannot_be_bought(report):
    parameters, _ = spent_on(report, report.to_config(10**9))
    assert parameters == 9 * 4 * 64


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (63, "buys nothing: rank 1 at one place takes 64"),
        (1e-9, "buys nothing"),
        (0, "got 0"),
        (-1, "got -1"),
        (2.5, "got 2.5"),
        (True, "got True"),
        ("1%", "got '1%'"),
        (float("nan"), "got nan"),
        (float("inf"), "got inf"),
    ],
)
def test_a_budget_that_is_none_is_refused(report, budget, message):
    with pytest.raises(ActshiftError, match=message):
        report.to_config(budget)


def test_texts_become_batches():
    batches = token_batches(["w1 w2 w3", "w4", "w5 w6"], word_tokenizer(pad_token="<pad>"), batch_size=2)
    assert [batch["input_ids"].tolist() for batch in batches] == [[[4, 5, 6, 2], [7, 2, 0, 0]], [[8, 9, 2]]]
    assert batches[0]["labels"].tolist() == [[4, 5, 6, 2], [7, 2, -100, -100]]
    assert batches[0]["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    [pair] = token_batches([{"prompt": "w1 w2", "completion": "w3"}], word_tokenizer())
    assert pair["labels"].tolist() == [[-100, -100, 6, 2]]
    assert locate(model_of(), batches_of(1), rank=1).groups == 1


@pytest.mark.parametrize(("rows", "message"), [([], "There are no rows"), ([3], "Rows must be texts")])
def test_rows_of_no_kind_are_refused(rows, message):
    with pytest.raises(ActshiftError, match=message):
        token_batches(rows, word_tokenizer())
