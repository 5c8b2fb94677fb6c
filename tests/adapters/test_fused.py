"""The switch of the fused kernels, and the kernels themselves in Triton's interpreter, on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from actshift import ActshiftError, fused_kernels
from actshift.adapters import LowRank, fused
from actshift.adapters.functional import add_shift

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("file", ["test_fused.py", "test_fused_model.py"])
def test_in_the_interpreter(file):
    pytest.importorskip("triton", reason="triton has wheels for Linux only")
    # Triton asks for the variable when it is imported, which others may have done in this process.
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-m", "gpu", "-rs", f"tests/gpu/{file}"]
    ran = subprocess.run(command, cwd=ROOT, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert ran.returncode == 0 and "skipped" not in ran.stdout, ran.stdout + ran.stderr


@pytest.mark.parametrize(
    ("backward", "dtype", "capability"), [(False, "bf16", 90), pytest.param(True, "fp16", 80, marks=pytest.mark.slow)]
)
def test_compiles_for_a_device_that_is_not_there(backward, dtype, capability, tmp_path, monkeypatch):
    triton = pytest.importorskip("triton", reason="triton has wheels for Linux only")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from actshift.adapters.kernels import through_the_code

    constants = dict(ACTIVATION="gelu", PRECISION=None, TOKENS=32, WIDTH=128, RANK=16)
    constants |= {"up_bias": None, "down_bias": None} if backward else {"delta": None}
    pointers = "x base out z delta reads writes down_bias up_bias".split()
    types = {name: "constexpr" if name in constants else "i32" for name in through_the_code.arg_names}
    types |= {name: f"*{dtype}" for name in pointers if name not in constants} | {"strength": "fp32"}
    compiled = triton.compile(ASTSource(through_the_code, types, constants), target=GPUTarget("cuda", capability, 32))
    assert "mma.sync" in compiled.asm["ptx"]  # by the tensor cores


def test_switching_on_says_what_is_missing(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ActshiftError, match="needs a CUDA device"):
        fused_kernels()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(ActshiftError, match=r"pip install 'actshift\[kernels\]'"):
        fused_kernels()


def test_tensors_on_the_cpu_are_not_for_the_kernels(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(fused, "_kernels", object())  # would fail if it were called
    x, shift = torch.ones(3, 8), LowRank(rank=2).build(8)
    with torch.no_grad():
        assert torch.equal(add_shift(x, x, shift.factors()), x)
