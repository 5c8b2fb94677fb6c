"""Ablation against its formula, a projection."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from actshift import Ablation
from actshift.adapters.functional import add_shift
from tests.adapters.parity import check_count, check_no_op, check_parity, random_shift


def formula(x, tensors):
    v = tensors["vector"]
    projector = torch.outer(v, v) / (v @ v)
    return -tensors["scale"] * x @ projector


@given(width=st.integers(1, 12), seed=st.integers(0, 2**16))
def test_ablation_matches_its_formula(width, seed):
    check_parity(Ablation().build(width), formula, width, seed)


@given(width=st.integers(2, 12), seed=st.integers(0, 2**16), strength=st.sampled_from([0.25, 1.0, 2.0]))
def test_the_strength_is_the_share_of_the_component_that_is_removed(width, seed, strength):
    shift, draw = Ablation().build(width).double(), torch.Generator().manual_seed(seed)
    v, x = torch.randn(2, width, generator=draw, dtype=torch.float64)
    shift.set_direction(v)
    steered = add_shift(x, x, shift.factors(), strength)
    torch.testing.assert_close(steered @ v, (1 - strength) * (x @ v))
    torch.testing.assert_close(steered - (steered @ v) * v / (v @ v), x - (x @ v) * v / (v @ v))


def test_factors_equal_the_module_and_the_gradient_reaches_a_fresh_adapter():
    shift, x = random_shift(Ablation(), 8), torch.randn(2, 3, 8, dtype=torch.float64)
    torch.testing.assert_close(add_shift(x, x, shift.factors()), x + shift(x))
    shift.register_forward_hook(lambda *_: None)
    assert shift.factors() is None
    fresh = Ablation().build(8)
    fresh(x.float()).sum().backward()
    assert fresh.scale.grad.abs() > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_long_vector_does_not_overflow(dtype):
    shift = Ablation().build(64)
    shift.set_direction(torch.full((64,), 6e4))
    assert shift.to(dtype)(torch.ones(64, dtype=dtype)).mean().item() == pytest.approx(-1, abs=0.02)


def test_ablation_has_d_plus_1_parameters_and_starts_as_a_no_op():
    assert check_count(Ablation(), 2048) == 2049
    check_no_op(Ablation(), 16)
