"""The benchmarks for a CUDA device run: here on the CPU and in Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.suites import gpu

CODE = """
from dataclasses import replace
from benchmarks.suites import gpu
tiny = replace(gpu.TINY, device="cpu")
for part in (gpu.training(tiny, rounds=1), gpu.full(tiny, rounds=1), gpu.decoding(tiny, tokens=2)):
    for figure in part:
        print(f"{figure.name} | {figure.case}")
"""


@pytest.mark.slow
def test_runs():
    pytest.importorskip("triton", reason="triton has wheels for Linux only")
    root, environment = Path(__file__).parents[2], {**os.environ, "TRITON_INTERPRET": "1"}
    ran = subprocess.run([sys.executable, "-c", CODE], cwd=root, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    found = ran.stdout.splitlines()
    for figure in (
        "step over the floor | post-block r=8, fused",
        "step over the floor | post-block r=8, compiled",
        "peak over the floor | full fine-tuning",
        "decode over the base | post-block r=8, fused",
        "decode over the base, compiled | post-block r=8",
    ):
        assert figure in found


def test_without_a_device_there_is_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (note,) = gpu.measure(quick=False)
    assert note.text.startswith("Not measured")
