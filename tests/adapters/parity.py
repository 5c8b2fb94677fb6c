"""How every adapter's formula is held to plain tensor code: in float64, forward and gradient."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from actshift.adapters import Adapter, Shift

Formula = Callable[[Tensor, dict[str, Tensor]], Tensor]


def check_parity(module: Shift, formula: Formula, width: int, seed: int) -> None:
    """Compare a module, its tensors drawn at random, with `formula(x, tensors)`: value, and gradients of all."""
    draw = torch.Generator().manual_seed(seed)
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw))
    x = torch.randn(3, 4, width, generator=draw, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(3, 4, width, generator=draw, dtype=torch.float64)
    twin = {name: p.detach().clone().requires_grad_() for name, p in module.named_parameters()}
    x_twin = x.detach().clone().requires_grad_()

    torch.manual_seed(seed)  # for what draws
    steered = x + module(x)
    torch.manual_seed(seed)
    expected = x_twin + formula(x_twin, twin)
    torch.testing.assert_close(steered, expected, rtol=1e-9, atol=1e-9)

    (weights * steered.square()).sum().backward()
    (weights * expected.square()).sum().backward()
    torch.testing.assert_close(x.grad, x_twin.grad, rtol=1e-7, atol=1e-9)
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(parameter.grad, twin[name].grad, rtol=1e-7, atol=1e-9, msg=name)


def check_count(adapter: Adapter, width: int, heads: int | None = None) -> int:
    """Compare `parameter_count` with what `build` makes, also on the meta device, and return it."""
    built = adapter.build(width, heads)
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in adapter.build(width, heads).state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in built.state_dict().items()}
    count = sum(p.numel() for p in built.parameters())
    assert adapter.parameter_count(width, heads) == count
    return count


def check_no_op(adapter: Adapter, width: int, heads: int | None = None) -> None:
    """Check that a fresh one shifts nothing at all, in training and evaluation and every dtype."""
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        module = adapter.build(width, heads).to(dtype)
        x = 100 * torch.randn(2, 3, width, dtype=dtype)
        for mode in (True, False):
            shift = module.train(mode)(x)
            assert shift.dtype == dtype and torch.count_nonzero(shift) == 0
