"""Vector: a constant, and nothing else."""

from __future__ import annotations

import torch

from actshift import Vector


def test_shift_is_the_vector_at_every_position():
    module = Vector().build(8)
    x = torch.randn(2, 3, 8, requires_grad=True)
    assert torch.count_nonzero(module(x)) == 0
    with torch.no_grad():
        module.vector.copy_(torch.arange(8.0))
    assert torch.equal((x + module(x)) - x.detach(), (x + torch.arange(8.0)) - x)
    (x + module(x)).sum().backward()
    assert torch.equal(module.vector.grad, torch.full((8,), 6.0))  # batch × seq


def test_count():
    assert Vector().parameter_count(2048) == 2048 == sum(p.numel() for p in Vector().build(2048).parameters())
