"""The sum in few kernels and the lean backward pass, against plain autograd."""

from __future__ import annotations

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from actshift.adapters import DiReFT, LoReFT, LowRank, NoReFT, Vector
from actshift.adapters.functional import add_shift, add_shift_memory_efficient

WIDTH = 12
ADAPTERS = {
    **{str(phi): LowRank(rank=3, activation=phi) for phi in (None, "silu", "gelu", "relu", "tanh")},
    "bias": LowRank(rank=3, bias=True),
    "loreft": LoReFT(rank=3),
    "noreft": NoReFT(rank=3),
    "direft": DiReFT(rank=3),
    "vector": Vector(),
}
NAMES = ("down", "up", "down_bias", "up_bias")
every_adapter = pytest.mark.parametrize("name", ADAPTERS)
ways = pytest.mark.parametrize("way", [lambda x, *rest: add_shift(x, x, *rest), add_shift_memory_efficient])


def drawn(name: str, dtype=torch.float64):
    """A shift with values everywhere, and an activation."""
    draw = torch.Generator().manual_seed(0)
    shift = ADAPTERS[name].build(WIDTH)
    with torch.no_grad():
        for parameter in shift.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw))
    x = torch.randn(2, 5, WIDTH, generator=draw, dtype=torch.float64)
    return shift.to(dtype), x.to(dtype).requires_grad_()


def results(shift, x, y):
    """The sum and the gradient that reaches everything, of a loss with a gradient of its own at every number."""
    inputs = [x, *shift.parameters()]
    weights = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).reshape(y.shape)
    return [y, *torch.autograd.grad((weights * y.square()).sum(), inputs)]


@ways
@every_adapter
@pytest.mark.parametrize("strength", [1.0, -0.7])
def test_sum_and_gradients_are_autograds(name, way, strength):
    shift, x = drawn(name)
    plain = results(shift, x, x + strength * shift(x))
    for one, other in zip(results(shift, x, way(x, shift.factors(), strength)), plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@every_adapter
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.bfloat16, 4e-2)])
def test_in_other_dtypes_it_is_as_near_to_float64_as_rounding_lets_it(name, dtype, close):
    shift, x = drawn(name, dtype)
    found = results(shift, x, add_shift_memory_efficient(x, shift.factors()))
    wide, exact = shift.double(), x.detach().double().requires_grad_()
    for one, other in zip(found, results(wide, exact, exact + wide(exact)), strict=True):
        assert one.dtype == dtype
        assert (one.double() - other).norm() <= close * other.norm()


@pytest.mark.parametrize("autocast", [False, True])
def test_an_adapter_in_float32_on_a_stream_in_bfloat16(autocast):
    shift, x = drawn("bias", torch.float32)
    low = x.detach().bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = results(shift, low, add_shift_memory_efficient(low, shift.factors()))
        plain = results(shift, low, low + shift(low if autocast else low.float()).bfloat16())
    for one, other in zip(found, plain, strict=True):
        assert one.dtype == other.dtype
        assert (one.double() - other.double()).norm() <= 2e-2 * other.double().norm()


@pytest.mark.parametrize("name", ["silu", "tanh", "bias", "None"])
def test_differentiated_twice(name):
    shift, x = drawn(name)
    factors = shift.factors()
    names = [name for name in NAMES if getattr(factors, name) is not None]

    def call(x, *tensors):
        return add_shift_memory_efficient(x, factors._replace(**dict(zip(names, tensors, strict=True))), 0.7)

    assert torch.autograd.gradgradcheck(call, (x, *(getattr(factors, name) for name in names)))


def test_under_torch_func_and_forwards():
    shift, x = drawn("silu")
    factors, v = shift.factors(), torch.ones_like(x)
    ways = [lambda x: x + shift(x), lambda x: add_shift_memory_efficient(x, factors)]
    for transformed in (
        lambda f: torch.func.jvp(f, (x,), (v,))[1],
        lambda f: torch.func.vjp(f, x)[1](v)[0],
        lambda f: torch.func.vmap(f)(x),
        lambda f: torch.autograd.functional.jvp(f, x, v)[1],
    ):
        torch.testing.assert_close(*(transformed(way) for way in ways))


def test_what_is_kept_is_the_sum_and_the_code():
    shift, x = drawn("silu")
    kept = []
    with saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        y = add_shift_memory_efficient(x, shift.factors())
    parameters = {parameter.data_ptr() for parameter in shift.parameters()}
    kept = [tensor for tensor in kept if tensor.data_ptr() not in parameters]
    assert sorted(tensor.numel() for tensor in kept) == [x.numel() // WIDTH * 3, x.numel()]
    assert y.data_ptr() in {tensor.data_ptr() for tensor in kept}


def test_a_sum_that_is_changed_in_place_is_an_error_and_not_a_wrong_gradient():
    shift, x = drawn("silu")
    y = add_shift_memory_efficient(x, shift.factors())
    y.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
