"""Descriptions go to dicts and back, and say what is wrong with a dict that does not fit."""

from __future__ import annotations

import json

import pytest

from actshift import ActshiftError, LowRank, Vector
from actshift.adapters import ADAPTERS, DiReFT, HeadScale, HeadVector, JoLA, LoReFT, NoReFT, adapter_from_dict


@pytest.mark.parametrize(
    "adapter",
    [
        Vector(),
        LowRank(),
        LowRank(3, None, True, "reference"),
        *(LoReFT(2), NoReFT(3), DiReFT()),
        *(HeadScale(l1=0.1), HeadVector(), HeadVector((3, 1))),
        JoLA(l0=0, temperature=0.9, end_temperature=0.2, anneal_steps=7),
    ],
)
def test_round_trip_through_json(adapter):
    assert adapter_from_dict(json.loads(json.dumps(adapter.to_dict()))) == adapter


def test_every_kind_is_registered_under_its_name():
    assert {kind: cls.kind for kind, cls in ADAPTERS.items()} == {kind: kind for kind in ADAPTERS}
    assert set(ADAPTERS) == set("vector low_rank loreft noreft direft head_scale head_vector jola".split())


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
