"""Locating on CUDA gives what it gives on the CPU."""

from __future__ import annotations

import pytest
import torch

from actshift import SteeringConfig, attach, gradient_init, locate
from actshift.tuner import steering_layers
from tests.gradients.parity import batches_of
from tests.zoo import ARCHITECTURES

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize("sketched", [False, True])
def test_gains_are_the_cpus(sketched, monkeypatch):
    from actshift.gradients import taps

    if sketched:
        monkeypatch.setattr(taps.Tap.__init__, "__defaults__", (0,))
    model = ARCHITECTURES["llama"]()
    here = locate(model, batches_of(4), rank=4)
    there = locate(model.cuda(), batches_of(4), rank=4)
    for one, other in zip(here.places, there.places, strict=True):
        assert other.gain(4).value == pytest.approx(one.gain(4).value, rel=1e-2)


def test_an_adapter_begins_on_the_gpu():
    model = attach(ARCHITECTURES["llama"]().cuda(), SteeringConfig(rank=2, init="gradient"))
    gradient_init(model, batches_of(2))
    for layer in steering_layers(model).values():
        down = layer.lora_steer["default"].down.weight
        assert down.is_cuda and torch.allclose(down[0] @ down[1], torch.zeros((), device="cuda"), atol=1e-4)
