"""The benchmarks for CUDA devices, run on the CPU with a tiny model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks.suites import gpu


@pytest.mark.slow
def test_the_suite_yields_every_figure():
    tiny = replace(gpu.TINY, device="cpu")
    parts = (gpu.training(tiny, rounds=1), gpu.full(tiny, rounds=1), gpu.decoding(tiny, tokens=2))
    figures = {f"{figure.name} | {figure.case}" for part in parts for figure in part}
    assert figures >= {
        "step over the floor | post-block r=8, compiled",
        "peak over the floor | full fine-tuning",
        "decode over the base | post-block r=8",
        "decode over the base, compiled | post-block r=8",
    }


def test_without_a_cuda_device_the_suite_yields_one_note(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (note,) = gpu.measure(quick=False)
    assert note.text.startswith("Not measured")
