"""GatedVector against its formula."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from actshift import GatedVector
from tests.adapters.parity import check_count, check_no_op, check_parity


def formula(x, tensors):
    c = tensors["condition"]
    cosine = (x @ c) / (x.square().sum(-1).sqrt() * c.square().sum().sqrt())
    return cosine.abs()[..., None] * tensors["vector"]


@given(width=st.integers(2, 12), seed=st.integers(0, 2**16))  # at width 1 the cosine is constant
def test_gated_vector_matches_its_formula(width, seed):
    check_parity(GatedVector().build(width), formula, width, seed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_gate_is_one_along_the_condition_and_zero_across_it(dtype):
    shift, v = GatedVector().build(64), torch.ones(64)
    shift.set_direction(v)
    across = torch.ones(64)
    across[::2] = -1
    x = torch.stack([600 * v, -v, across, 0 * v]).to(dtype)  # ‖600 v‖² overflows in float16
    expected = torch.tensor([1.0, 1.0, 0.0, 0.0])[:, None].expand(4, 64).to(dtype)
    torch.testing.assert_close(shift.to(dtype)(x), expected)


def test_the_gradient_reaches_a_fresh_adapter():
    fresh = GatedVector().build(8)
    fresh(torch.randn(3, 8)).sum().backward()
    assert fresh.vector.grad.abs().min() > 0


def test_gated_vector_has_2d_parameters_and_starts_as_a_no_op():
    assert check_count(GatedVector(), 2048) == 4096
    check_no_op(GatedVector(), 16)
