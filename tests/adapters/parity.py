"""Shared checks of adapters: parity with a formula in plain tensor code, parameter counts, and no-op starts."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from actshift.adapters import Adapter, Shift

Formula = Callable[[Tensor, dict[str, Tensor]], Tensor]


def random_shift(adapter: Adapter, width: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Shift:
    """Build a shift for a site of `width` and draw all its parameters from N(0, 1)."""
    draw = torch.Generator().manual_seed(seed)
    shift = adapter.build(width)
    with torch.no_grad():
        for parameter in shift.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw))
    return shift.to(dtype)


def check_parity(module: Shift, formula: Formula, width: int, seed: int) -> None:
    """Compare a module with random parameters to `formula(x, tensors)`: the value and all gradients, in float64."""
    draw = torch.Generator().manual_seed(seed)
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw))
    x = torch.randn(3, 4, width, generator=draw, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(3, 4, width, generator=draw, dtype=torch.float64)
    copies = {name: p.detach().clone().requires_grad_() for name, p in module.named_parameters()}
    x_copy = x.detach().clone().requires_grad_()

    torch.manual_seed(seed)  # for adapters that sample
    steered = x + module(x)
    torch.manual_seed(seed)
    expected = x_copy + formula(x_copy, copies)
    torch.testing.assert_close(steered, expected, rtol=1e-9, atol=1e-9)

    (weights * steered.square()).sum().backward()
    (weights * expected.square()).sum().backward()
    torch.testing.assert_close(x.grad, x_copy.grad, rtol=1e-7, atol=1e-9)
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(parameter.grad, copies[name].grad, rtol=1e-7, atol=1e-9, msg=name)


def check_count(adapter: Adapter, width: int, heads: int | None = None) -> int:
    """Compare `parameter_count` with the built module, compare shapes on the meta device, and return the count."""
    built = adapter.build(width, heads)
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in adapter.build(width, heads).state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in built.state_dict().items()}
    count = sum(p.numel() for p in built.parameters())
    assert adapter.parameter_count(width, heads) == count
    return count


def check_no_op(adapter: Adapter, width: int, heads: int | None = None) -> None:
    """Check that a fresh adapter's shift is exactly zero, in training, in evaluation and in every dtype."""
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        module = adapter.build(width, heads).to(dtype)
        x = 100 * torch.randn(2, 3, width, dtype=dtype)
        for training in (True, False):
            shift = module.train(training)(x)
            assert shift.dtype == dtype and torch.count_nonzero(shift) == 0
