"""Descriptions go to dicts and back, and say what is wrong with a dict that does not fit."""

from __future__ import annotations

import pytest

from actshift import ActshiftError, LowRank, Vector
from actshift.adapters import ADAPTERS, adapter_from_dict


@pytest.mark.parametrize("adapter", [Vector(), LowRank(), LowRank(3, None, True, "reference")])
def test_round_trip(adapter):
    assert adapter_from_dict(adapter.to_dict()) == adapter


def test_every_kind_is_registered_under_its_name():
    assert {kind: cls.kind for kind, cls in ADAPTERS.items()} == {kind: kind for kind in ADAPTERS}
    assert {"vector", "low_rank"} <= set(ADAPTERS)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "low_ranc"}, "did you mean 'low_rank'"),
        ({}, "unknown adapter kind None"),
        ({"kind": "low_rank", "rnak": 3}, "did you mean 'rank'"),
        ({"kind": "vector", "rank": 3}, "it has none"),
    ],
)
def test_unknown_kinds_and_fields(values, message):
    with pytest.raises(ActshiftError, match=message):
        adapter_from_dict(values)
