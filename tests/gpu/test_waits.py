"""The check of `tests/performance/test_waits.py` with the synchronisation errors of CUDA itself."""

from __future__ import annotations

import pytest
import torch

from tests.performance.test_waits import CONFIGS, training_step

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_training_step_does_not_synchronise(name):
    step = training_step(CONFIGS[name], "cuda")
    step()  # creates the handles of the CUDA libraries
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
