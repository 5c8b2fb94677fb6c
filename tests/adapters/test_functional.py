"""Sums of activations and shifts, with and without the memory-efficient backward pass, against plain autograd."""

from __future__ import annotations

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from actshift.adapters import DiReFT, LoReFT, LowRank, NoReFT, Vector
from actshift.adapters.functional import ACTIVATIONS, DERIVATIVES, add_shift, add_shift_memory_efficient, stack_shifts
from tests.adapters.parity import random_shift

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
both_sums = pytest.mark.parametrize("add", [lambda x, *rest: add_shift(x, x, *rest), add_shift_memory_efficient])


def shift_and_activation(name: str, dtype=torch.float64):
    x = torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return random_shift(ADAPTERS[name], WIDTH, dtype=dtype), x.to(dtype).requires_grad_()


def sum_and_gradients(shift, x, y):
    """Return y and the gradients of x and all parameters, for a loss whose gradient differs at every entry of y."""
    inputs = [x, *shift.parameters()]
    weights = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).reshape(y.shape)
    return [y, *torch.autograd.grad((weights * y.square()).sum(), inputs)]


@both_sums
@every_adapter
@pytest.mark.parametrize("strength", [1.0, -0.7])
def test_sum_and_gradients_match_autograd(name, add, strength):
    shift, x = shift_and_activation(name)
    plain = sum_and_gradients(shift, x, x + strength * shift(x))
    computed = sum_and_gradients(shift, x, add(x, shift.factors(), strength))
    for actual, expected in zip(computed, plain, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


@every_adapter
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 4e-2)])
def test_lower_precision_differs_from_float64_only_by_rounding(name, dtype, tolerance):
    shift, x = shift_and_activation(name, dtype)
    computed = sum_and_gradients(shift, x, add_shift_memory_efficient(x, shift.factors()))
    exact_shift, exact_x = shift.double(), x.detach().double().requires_grad_()
    exact = sum_and_gradients(exact_shift, exact_x, exact_x + exact_shift(exact_x))
    for actual, expected in zip(computed, exact, strict=True):
        assert actual.dtype == dtype
        assert (actual.double() - expected).norm() <= tolerance * expected.norm()


@pytest.mark.parametrize("autocast", [False, True])
def test_float32_adapter_on_bfloat16_activations(autocast):
    shift, x = shift_and_activation("bias", torch.float32)
    low = x.detach().bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        computed = sum_and_gradients(shift, low, add_shift_memory_efficient(low, shift.factors()))
        plain = sum_and_gradients(shift, low, low + shift(low if autocast else low.float()).bfloat16())
    for actual, expected in zip(computed, plain, strict=True):
        assert actual.dtype == expected.dtype
        assert (actual.double() - expected.double()).norm() <= 2e-2 * expected.double().norm()


@pytest.mark.parametrize("name", ["silu", "tanh", "bias", "None"])
def test_second_derivatives(name):
    shift, x = shift_and_activation(name)
    factors = shift.factors()
    names = [name for name in NAMES if getattr(factors, name) is not None]

    def call(x, *tensors):
        return add_shift_memory_efficient(x, factors._replace(**dict(zip(names, tensors, strict=True))), 0.7)

    assert torch.autograd.gradgradcheck(call, (x, *(getattr(factors, name) for name in names)))


def test_torch_func_and_forward_mode_match_the_plain_sum():
    shift, x = shift_and_activation("silu")
    factors, v = shift.factors(), torch.ones_like(x)
    sums = [lambda x: x + shift(x), lambda x: add_shift_memory_efficient(x, factors)]
    for transformed in (
        lambda f: torch.func.jvp(f, (x,), (v,))[1],
        lambda f: torch.func.vjp(f, x)[1](v)[0],
        lambda f: torch.func.vmap(f)(x),
        lambda f: torch.autograd.functional.jvp(f, x, v)[1],
    ):
        torch.testing.assert_close(*(transformed(add) for add in sums))


def test_only_the_sum_and_the_code_are_saved():
    shift, x = shift_and_activation("silu")
    saved = []
    with saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):
        y = add_shift_memory_efficient(x, shift.factors())
    parameters = {parameter.data_ptr() for parameter in shift.parameters()}
    saved = [tensor for tensor in saved if tensor.data_ptr() not in parameters]
    assert sorted(tensor.numel() for tensor in saved) == [x.numel() // WIDTH * 3, x.numel()]
    assert y.data_ptr() in {tensor.data_ptr() for tensor in saved}


def test_changing_the_sum_in_place_is_an_error():
    shift, x = shift_and_activation("silu")
    y = add_shift_memory_efficient(x, shift.factors())
    y.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize(
    "adapters",
    [
        {0: LowRank(rank=3), 1: LowRank(rank=3), 3: LowRank(rank=3)},
        {1: LowRank(rank=1, activation="tanh", bias=True), 2: LowRank(rank=5, activation="tanh")},
        {0: Vector(), 1: LowRank(rank=2, activation=None), 2: LoReFT(rank=3)},
        {0: Vector(), 3: Vector()},
    ],
    ids=["alike", "ranks", "kinds", "vectors"],
)
def test_stacked_shifts_match_each_row_alone(adapters):
    shifts = {row: random_shift(adapter, WIDTH, seed=row) for row, adapter in adapters.items()}
    strengths = {row: 1.0 - 0.7 * row for row in shifts}
    base, x = torch.randn(2, 4, 5, WIDTH, dtype=torch.float64).unbind()
    x.requires_grad_()
    batched = stack_shifts({row: (shift.factors(), strengths[row]) for row, shift in shifts.items()}, count=4)
    sums = batched.add(base, x)
    expected = torch.stack(
        [base[row] + strengths[row] * shifts[row](x[row]) if row in shifts else base[row] for row in range(4)]
    )
    torch.testing.assert_close(sums, expected)
    assert all(torch.equal(sums[row], base[row]) for row in range(4) if row not in shifts)
    if any(not isinstance(adapter, Vector) for adapter in adapters.values()):
        torch.testing.assert_close(*(torch.autograd.grad(y.square().sum(), x)[0] for y in (sums, expected)))


def test_stacked_shifts_keep_the_dtype_of_the_activation():
    batched = stack_shifts({0: (LowRank(rank=2).build(WIDTH).factors(), 1.0)}, count=1)
    x = torch.randn(1, 3, WIDTH, dtype=torch.bfloat16)
    assert torch.equal(batched.add(x, x), x)


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
