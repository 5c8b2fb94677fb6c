"""What `tests/performance/test_waits.py` finds on meta tensors, by CUDA's own word."""

from __future__ import annotations

import pytest
import torch

from tests.performance.test_waits import CONFIGS, training_step

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_training_step_does_not_wait(name):
    step = training_step(CONFIGS[name], "cuda")
    step()  # the libraries' own handles are made
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
