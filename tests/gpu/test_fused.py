"""The fused kernels against the plain path in float64: on a CUDA device, or on the CPU in Triton's interpreter.

`tests/adapters/test_fused.py` runs it in the interpreter, where there is no CUDA device.
"""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from actshift import fused_kernels
from actshift.adapters import LoReFT, LowRank, fused
from actshift.adapters.factors import ACTIVATIONS, Factors
from actshift.adapters.functional import add_shift, add_shift_memory_efficient, stacked
from tests.gpu.kernels import DEVICE, MARKS, count_launches

pytestmark = MARKS

CLOSE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
HALVES = (torch.float16, torch.bfloat16)
ADAPTERS = {
    **{str(phi): LowRank(rank=3, activation=phi) for phi in (None, "silu", "gelu", "relu", "tanh")},
    "bias": LowRank(rank=3, bias=True),
    "wide": LowRank(rank=40),
    "loreft": LoReFT(rank=3),
}


@pytest.fixture(autouse=True)
def launches(monkeypatch):
    """The kernels are on, and their calls counted, for a fallback would pass every test."""
    fused_kernels()
    yield count_launches(monkeypatch)
    fused_kernels(False)


def drawn(adapter, dtype, width=150, tokens=35):
    """A shift with values everywhere, and an activation; two blocks of tokens and two of columns, neither full."""
    draw = torch.Generator().manual_seed(0)
    shift = adapter.build(width)
    with torch.no_grad():
        for parameter in shift.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw) / parameter.shape[-1] ** 0.5)
    x = torch.randn(tokens, width, generator=draw)
    return shift.to(DEVICE, dtype), x.to(DEVICE, dtype).requires_grad_()


def results(shift, x, y):
    """The sum and the gradient that reaches everything, of a loss with a gradient of its own at every number."""
    weights = torch.linspace(-1, 2, y.numel(), dtype=y.dtype, device=y.device).reshape(y.shape)
    inputs = [tensor for tensor in (x, *shift.parameters()) if tensor.requires_grad]
    return [y, *torch.autograd.grad((weights * y.square()).sum(), inputs)]


def exact(shift, x, strength):
    shift, x = deepcopy(shift).double(), x.detach().double().requires_grad_(x.requires_grad)
    return results(shift, x, x + strength * shift(x))


def assert_near(found, expected, close):
    for one, other in zip(found, expected, strict=True):
        assert (one.double() - other).norm() <= close * other.norm()


CASES = [
    *((name, torch.float32) for name in ADAPTERS),
    *((name, dtype) for name in ("silu", "bias") for dtype in HALVES),
]


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_sum_and_gradients_are_autograds(name, dtype, launches):
    shift, x = drawn(ADAPTERS[name], dtype)
    found = results(shift, x, add_shift_memory_efficient(x, shift.factors(), -0.7))
    assert launches == [False, True] and all(one.dtype == dtype for one in found)
    assert_near(found, exact(shift, x, -0.7), CLOSE[dtype])


@pytest.mark.parametrize("rank", [1, 16, 17])
@pytest.mark.parametrize(("tokens", "width"), [(1, 17), (200, 33), (3, 300)])
def test_any_size(rank, tokens, width, launches):
    shift, x = drawn(LowRank(rank=rank), torch.float32, width, tokens)
    assert_near(results(shift, x, add_shift_memory_efficient(x, shift.factors())), exact(shift, x, 1), 1e-5)
    assert launches == [False, True]


def test_without_autograd_it_is_the_same_to_the_bit(launches):
    shift, x = drawn(ADAPTERS["bias"], torch.bfloat16)
    with_autograd = add_shift_memory_efficient(x, shift.factors(), 0.5)
    with torch.no_grad():
        assert torch.equal(add_shift(x, x, shift.factors(), 0.5), with_autograd)
    assert launches == [False, False]


def test_a_base_that_is_another(launches):
    shift, x = drawn(ADAPTERS["silu"], torch.float32)
    base = torch.randn(2, 3, 150, device=DEVICE)
    x = x[:6].detach().reshape(2, 3, 150)
    with torch.no_grad():
        assert_near([add_shift(base, x, shift.factors(), 0.5)], [base.double() + 0.5 * shift(x).double()], 1e-6)
    assert len(launches) == 1


def test_what_is_not_contiguous(launches):
    shift, x = drawn(ADAPTERS["silu"], torch.float32, width=32, tokens=32)
    across = x.detach().t().requires_grad_()
    assert_near(
        results(shift, across, add_shift_memory_efficient(across, shift.factors())), exact(shift, across, 1), 1e-5
    )
    y = add_shift_memory_efficient(x, shift.factors())
    expanded, *_ = torch.autograd.grad(y.sum(), [x])  # its gradient is one number, expanded
    assert_near([expanded], [torch.autograd.grad((x + shift(x)).sum(), x)[0].double()], 1e-5)
    assert launches == [False, True] * 2


@pytest.mark.parametrize("autocast", [False, True])
def test_an_adapter_in_float32_on_a_stream_in_bfloat16(autocast, launches):
    shift, x = drawn(ADAPTERS["bias"], torch.float32)
    x = x.detach().bfloat16().requires_grad_()
    with torch.autocast(DEVICE, torch.bfloat16, enabled=autocast):
        found = results(shift, x, add_shift_memory_efficient(x, shift.factors()))
    assert launches == [False, True] and [one.dtype for one in found[:3]] == [torch.bfloat16] * 2 + [torch.float32]
    assert_near(found, exact(shift, x, 1), 2e-2)


def test_a_first_layer_needs_no_gradient_of_its_input(launches):
    shift, x = drawn(ADAPTERS["gelu"], torch.float32)
    x = x.detach()
    assert_near(results(shift, x, add_shift_memory_efficient(x, shift.factors())), exact(shift, x, 1), 1e-5)
    assert launches == [False]


def test_what_is_not_taken_is_computed_as_ever(launches):
    shift, x = drawn(ADAPTERS["silu"], torch.float32)
    factors, v = shift.factors(), torch.ones_like(x)
    (first,) = torch.autograd.grad(add_shift_memory_efficient(x, factors).square().sum(), x, create_graph=True)
    (plain,) = torch.autograd.grad((x + shift(x)).square().sum(), x, create_graph=True)
    assert launches == [False]  # the backward pass is plain, as it is to be differentiated
    torch.testing.assert_close(*(torch.autograd.grad((g * v).sum(), x)[0] for g in (first, plain)))
    launches.clear()
    with torch.no_grad():
        torch.func.vmap(lambda x: add_shift_memory_efficient(x, factors))(x)
        torch.func.jvp(lambda x: add_shift_memory_efficient(x, factors), (x,), (v,))
        add_shift(x.double(), x.double(), factors.to(torch.float64))
        wide, y = drawn(LowRank(rank=fused.LARGEST_RANK + 1), torch.float32)
        add_shift(y, y, wide.factors())
    assert not launches


@pytest.mark.parametrize("dtype", CLOSE)
def test_rows_are_each_their_own_in_one_launch(dtype, launches):
    adapters = {0: LowRank(rank=3, bias=True), 1: LowRank(rank=5), 3: LowRank(rank=2)}
    shifts = {row: drawn(adapter, dtype)[0] for row, adapter in adapters.items()}
    product = stacked({row: (shift.factors(), 1.0 - 0.7 * row) for row, shift in shifts.items()}, count=4)
    base, x = torch.randn(2, 4, 5, 150, device=DEVICE, dtype=dtype).unbind()
    with torch.no_grad():
        sums = product.add(base, x)
        assert sums.dtype == dtype and torch.equal(sums[2], base[2]) and len(launches) == 1
        for row, shift in shifts.items():
            expected = base[row].double() + (1.0 - 0.7 * row) * deepcopy(shift).double()(x[row].double())
            assert_near([sums[row]], [expected], CLOSE[dtype])
        assert torch.equal(product.of_rows([3, 0]).add(base[[3, 0]], x[[3, 0]]), sums[[3, 0]])


def test_a_slope_far_out_and_a_tanh_near_zero():
    z = torch.tensor([[-30.0, -1e-3, 0.0, 1e-3, 0.0999, 0.1001, 30.0]], device=DEVICE)
    one = torch.eye(7, device=DEVICE)
    for name in (None, "silu", "gelu", "relu", "tanh"):
        x = z.clone().requires_grad_()
        y = add_shift_memory_efficient(x, Factors(one, one, name))
        w = z.double().requires_grad_()
        expected = w + ACTIVATIONS[name](w)
        torch.testing.assert_close(y.double(), expected, rtol=1e-6, atol=1e-9)
        grads = (torch.autograd.grad(sums.sum(), at)[0].double() for sums, at in ((y, x), (expected, w)))
        torch.testing.assert_close(*grads, rtol=1e-6, atol=1e-6)
