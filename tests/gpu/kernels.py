"""What the tests of the fused kernels share: where they run, and a count of the kernels' calls."""

from __future__ import annotations

import os

import pytest
import torch

from actshift.adapters import fused

pytest.importorskip("triton")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
MARKS = [
    pytest.mark.gpu,
    pytest.mark.skipif(not (INTERPRETED or torch.cuda.is_available()), reason="there is no CUDA device"),
]


def count_launches(monkeypatch) -> list[bool]:
    """Return a list that grows with each call of a kernel: whether it is one of the backward pass."""
    counted, launch = [], fused._launch
    monkeypatch.setattr(fused, "_launch", lambda *args: counted.append(args[4] is not None) or launch(*args))
    return counted
