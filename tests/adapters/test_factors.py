"""Derivatives of the activations against autograd, and hooks that `Shift.factors` must respect."""

from __future__ import annotations

import pytest
import torch

from actshift import LowRank
from actshift.adapters.factors import ACTIVATIONS, DERIVATIVES


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("with_grad", [False, True])
def test_derivatives_match_autograd(name, with_grad):
    z = torch.randn(50, dtype=torch.float64, requires_grad=True)
    gradient = torch.randn(50, dtype=torch.float64)
    (expected,) = torch.autograd.grad(ACTIVATIONS[name](z), z, gradient)
    with torch.set_grad_enabled(with_grad):
        torch.testing.assert_close(DERIVATIVES[name](gradient, z.detach()), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("register", ["forward", "forward_pre", "full_backward", "full_backward_pre"])
def test_a_module_with_a_hook_has_no_factors(register):
    shift = LowRank(rank=2).build(6)
    assert shift.factors() is not None
    for part in (shift, shift.down, shift.up):
        handle = getattr(part, f"register_{register}_hook")(lambda *args: None)
        assert shift.factors() is None
        handle.remove()
        assert shift.factors() is not None


def test_a_parametrised_weight_has_no_factors():
    shift = LowRank(rank=2).build(6)
    torch.nn.utils.parametrizations.weight_norm(shift.down)
    assert shift.factors() is None
