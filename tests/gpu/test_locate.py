"""`locate` and `gradient_init` on CUDA match the CPU."""

from __future__ import annotations

import pytest
import torch

from actshift import SteeringConfig, attach, gradient_init, locate
from actshift.tuner import steering_layers
from tests.gradients.parity import batches_of
from tests.zoo import ARCHITECTURES

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize("sketched", [False, True])
def test_gains_match_the_cpu(sketched, monkeypatch):
    from actshift.gradients import taps

    if sketched:
        monkeypatch.setattr(taps.Tap.__init__, "__defaults__", (0,))
    model = ARCHITECTURES["llama"]()
    on_cpu = locate(model, batches_of(4), rank=4)
    on_gpu = locate(model.cuda(), batches_of(4), rank=4)
    for expected, actual in zip(on_cpu.places, on_gpu.places, strict=True):
        assert actual.gain(4).value == pytest.approx(expected.gain(4).value, rel=1e-2)


def test_gradient_init_sets_the_adapter_on_the_gpu():
    model = attach(ARCHITECTURES["llama"]().cuda(), SteeringConfig(rank=2, init="gradient"))
    gradient_init(model, batches_of(2))
    for layer in steering_layers(model).values():
        down = layer.lora_steer["default"].down.weight
        assert down.is_cuda and torch.allclose(down[0] @ down[1], torch.zeros((), device="cuda"), atol=1e-4)
