"""LowRank against plain tensor code written here, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from actshift import ActshiftError, LowRank

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
def test_formula_forward_and_gradient(width, rank, activation, bias, seed):
    rank = min(rank, width)
    draw = torch.Generator().manual_seed(seed)
    module = LowRank(rank, activation, bias).build(width).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw))
    x = torch.randn(3, 4, width, generator=draw, dtype=torch.float64, requires_grad=True)
    twin = {name: p.detach().clone().requires_grad_() for name, p in module.named_parameters()}
    x_twin = x.detach().clone().requires_grad_()
    code = torch.einsum("rd,bsd->bsr", twin["down.weight"], x_twin) + (twin["down.bias"] if bias else 0)
    expected = torch.einsum("dr,bsr->bsd", twin["up.weight"], PHI[activation](code))
    expected = expected + (twin["up.bias"] if bias else 0)
    torch.testing.assert_close(module(x), expected, rtol=1e-9, atol=1e-9)

    module(x).square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(x.grad, x_twin.grad, rtol=1e-7, atol=1e-9)
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(parameter.grad, twin[name].grad, rtol=1e-7, atol=1e-9)


@given(width=st.integers(1, 64), rank=st.integers(1, 16), bias=st.booleans())
def test_count_matches_the_built_module(width, rank, bias):
    rank = min(rank, width)
    adapter = LowRank(rank, bias=bias)
    built = sum(p.numel() for p in adapter.build(width).parameters())
    assert adapter.parameter_count(width) == built == 2 * width * rank + (width + rank) * bias


@pytest.mark.parametrize("activation", list(PHI))
@pytest.mark.parametrize("bias", [False, True])
def test_a_fresh_one_shifts_nothing(activation, bias):
    module = LowRank(rank=4, activation=activation, bias=bias).build(16)
    assert torch.count_nonzero(module(torch.randn(2, 3, 16))) == 0


def test_init_scales():
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
def test_bad_fields_say_what_is_allowed(fields, message):
    with pytest.raises(ActshiftError, match=message.replace("?", r"\?")):
        LowRank(**fields)


def test_rank_above_the_width():
    with pytest.raises(ActshiftError, match="rank 9 is above the site's width 8"):
        LowRank(rank=9).build(8)
