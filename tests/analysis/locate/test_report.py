from __future__ import annotations

import dataclasses
import json

import pytest

from actshift import locate
from tests.gradients.parity import batch_of, batches_of, model_of


def test_gains_hold_on_other_batches_only_if_the_rows_are_alike():
    """On random words the gains are chance; if all rows are the same, all of the gains hold."""
    chance = locate(model_of(), [batch_of(2, 9, 3, seed=number) for number in range(8)], rank=4)
    same = locate(model_of(), [batch_of(2, 9, 3)] * 8, rank=4)
    assert chance.held_out < 0.6 and "the rest is chance: give more rows" in str(chance)
    assert same.held_out == pytest.approx(1) and "100 % of the gains hold" in str(same).replace("100.0", "100")
    assert same.places[0].held_out == pytest.approx([same.places[0].gain(rank).value for rank in range(1, 5)])
    single = locate(model_of(), batches_of(1), rank=1)
    assert single.held_out is None and single.groups == 1


def test_a_report_prints_and_converts_to_json(report):
    text = str(report)
    for word in ("post_block", "post_attention", "c_attn", "block", "±", "r=1", f"{report.targets:,} targets"):
        assert word in text
    values = json.loads(json.dumps(report.to_dict()))
    assert len(values["places"]) == 3 * (3 + 4)
    first = values["places"][0]
    assert first["gains"]["1"]["per_parameter"] == pytest.approx(first["singular_values"][0] / 64)
    assert set(first["gains"]) == {"vector", "1", "2", "4"}
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.rank = 1


def test_the_heat_maps_and_the_bars_are_drawn(report, tmp_path):
    figures = [report.figure(), *(section.draw() for section in report.sections)]
    assert [len(figure.axes) for figure in figures] == [2, 1, 1, 1]
    for number, figure in enumerate(figures):
        for ending in ("png", "svg"):
            path = tmp_path / f"{number}.{ending}"
            figure.savefig(path)
            assert path.stat().st_size > 5000


def test_a_star_marks_gains_that_match_the_largest(report):
    """The largest gain always has one; without a standard error there is none."""
    cells = [cell for section in report.sections[:2] for row in section.rows for cell in row[1:]]
    gains = [place.gain(report.rank) for place in report.places if not place.weight]
    assert f"{max(gains, key=lambda gain: gain.value)}*" in cells
    single = locate(model_of(), batches_of(1), rank=1)
    assert not any("*" in cell for section in single.sections for row in section.rows for cell in row)
