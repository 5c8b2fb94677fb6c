"""Interventions: refused values, the stored form, and the hosts they resolve to."""

from __future__ import annotations

import pytest

from actshift import ActshiftError, Intervention, LowRank, Positions, SteeringConfig, Vector, attach
from actshift.tuner.intervention import interventions_from, resolve_targets
from tests.contract.cases import fresh_model
from tests.zoo import LAYERS

SEVERAL = [
    Intervention(LowRank(rank=2), layers=(0,)),
    Intervention(Vector(), "post_mlp", layers=(0, -1), positions=Positions.prompt()),
]


def test_interventions_are_read_from_their_stored_form():
    assert interventions_from([intervention.to_dict() for intervention in SEVERAL]) == tuple(SEVERAL)
    assert interventions_from(SEVERAL) == tuple(SEVERAL)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "must be a list of at least one Intervention"),
        ("post_block", "must be a list of at least one Intervention"),
        (
            [{"siet": "post_mlp"}],
            r"Unknown field 'siet' of an intervention .*'site'.*fields are: adapter",
        ),
        ([Vector()], r"holds Vector\(\), which is not an Intervention"),
        ([{"positions": "prompt"}], "positions must be a Positions such as"),
        ([{"adapter": "vector"}], "adapter must be an adapter such as"),
    ],
)
def test_invalid_interventions_are_refused(values, message):
    with pytest.raises(ActshiftError, match=message):
        interventions_from(values)


def test_targets_are_the_hosts_in_the_order_of_the_interventions():
    resolved = resolve_targets(fresh_model("llama"), SEVERAL)
    assert [(target.host.site, target.host.layer) for target in resolved] == [
        ("post_block", 0),
        ("post_mlp", 0),
        ("post_mlp", LAYERS - 1),
    ]
    assert [target.intervention for target in resolved] == [SEVERAL[0], SEVERAL[1], SEVERAL[1]]


def test_two_interventions_at_one_host_are_refused_and_the_model_stays_unchanged():
    model = fresh_model("llama")
    before = [name for name, _ in model.named_modules()]
    twice = SteeringConfig(interventions=[Intervention(Vector()), Intervention(LowRank(rank=2), layers=(1,))])
    with pytest.raises(ActshiftError, match=r"Two interventions steer post_block of block 1 \(model.layers.1\)"):
        attach(model, twice)
    assert [name for name, _ in model.named_modules()] == before


def test_interventions_and_direct_fields_are_refused_together():
    with pytest.raises(ActshiftError, match="interventions cannot be combined with site"):
        SteeringConfig(interventions=SEVERAL, site="post_mlp")
