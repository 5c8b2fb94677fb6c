"""The fields of `Orthogonality`: JSON round trip and errors."""

from __future__ import annotations

import json

import pytest

from actshift.errors import ActshiftError
from actshift.orthogonality import Orthogonality


@pytest.mark.parametrize("rule", [Orthogonality(), Orthogonality("both", every="epoch"), Orthogonality(penalty=0.5)])
def test_json_round_trip(rule):
    assert Orthogonality.from_dict(json.loads(json.dumps(rule.to_dict()))) == rule


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(side="raed"), "did you mean 'read'"),
        (dict(every=0), "from 1 up, or 'epoch'"),
        (dict(every=True), "from 1 up, or 'epoch'"),
        (dict(every="step"), "from 1 up, or 'epoch'"),
        (dict(penalty=0), "above 0"),
        (dict(penalty="hard"), "above 0"),
        (dict(penalty=float("nan")), "above 0"),
        (dict(penalty=float("inf")), "must be finite"),
        (dict(penalty=1.0, every=2), "cannot be combined with every=2"),
        (dict(sides="read"), "did you mean 'side'"),
    ],
)
def test_invalid_fields_are_rejected(fields, message):
    with pytest.raises(ActshiftError, match=message):
        Orthogonality.from_dict(fields)


@pytest.mark.parametrize(("side", "reads", "writes"), [("read", 1, 0), ("write", 0, 1), ("both", 1, 1)])
def test_side_selects_the_projected_matrices(side, reads, writes):
    rule = Orthogonality(side)
    assert (rule.reads, rule.writes) == (reads, writes)
