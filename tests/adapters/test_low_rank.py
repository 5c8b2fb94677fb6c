"""LowRank against plain tensor code, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from actshift import ActshiftError, LowRank
from tests.adapters.parity import check_count, check_no_op, check_parity

PHI = {
    None: lambda z: z,
    "silu": lambda z: z / (1 + torch.exp(-z)),
    "gelu": lambda z: 0.5 * z * (1 + torch.erf(z / math.sqrt(2))),
    "relu": lambda z: torch.clamp(z, min=0),
    "tanh": lambda z: (torch.exp(2 * z) - 1) / (torch.exp(2 * z) + 1),
}


@given(
    width=st.integers(2, 12),
    rank=st.integers(1, 6),
    activation=st.sampled_from(list(PHI)),
    bias=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_low_rank_matches_its_formula(width, rank, activation, bias, seed):
    rank = min(rank, width)

    def formula(x, t):
        code = torch.einsum("rd,bsd->bsr", t["down.weight"], x) + (t["down.bias"] if bias else 0)
        shift = torch.einsum("dr,bsr->bsd", t["up.weight"], PHI[activation](code))
        return shift + (t["up.bias"] if bias else 0)

    check_parity(LowRank(rank, activation, bias).build(width), formula, width, seed)


@given(width=st.integers(1, 64), rank=st.integers(1, 16), bias=st.booleans())
def test_count_matches_the_built_module(width, rank, bias):
    rank = min(rank, width)
    assert check_count(LowRank(rank, bias=bias), width) == 2 * width * rank + (width + rank) * bias


@pytest.mark.parametrize("activation", list(PHI))
@pytest.mark.parametrize("bias", [False, True])
def test_a_fresh_adapter_is_a_no_op(activation, bias):
    check_no_op(LowRank(rank=4, activation=activation, bias=bias), 16)


def test_inits_have_the_documented_scale():
    default, reference = (LowRank(rank=8, init=init).build(1024).down.weight for init in ("default", "reference"))
    for weight, bound in ((default, 1 / 32), (reference, 1 / 32 * 1e-3)):
        assert weight.abs().max() <= bound  # Kaiming-uniform(a=√5) is U(-1/√d, 1/√d)
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rank": 0}, "rank must be a whole number from 1 up, got 0"),
        ({"rank": 2.5}, "got 2.5"),
        ({"rank": True}, "got True"),
        ({"activation": "silo"}, "did you mean 'silu'"),
        ({"init": "referense"}, "did you mean 'reference'"),
        ({"bias": "yes"}, "bias must be True or False"),
    ],
)
def test_bad_fields_are_errors_that_name_the_allowed_values(fields, message):
    with pytest.raises(ActshiftError, match=message.replace("?", r"\?")):
        LowRank(**fields)


def test_a_rank_above_the_site_width_is_rejected():
    with pytest.raises(ActshiftError, match="rank 9 is above the site's width 8"):
        LowRank(rank=9).build(8)
