"""pyreft needs older versions than ours, so it is measured in a process of its own, in turns with the floor, LoRA and
the base there; only the ratios compare with those above. All that generates is `generate` here, pyreft's one way to
decode: prefill is a call for one token, a decode step what each further token adds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.figure import Figure, Note
from benchmarks.models import MIDDLE, SMALL, TINY
from benchmarks.suites.generation import MIDDLE_ROW, SMALL_ROW, SMALL_ROWS

ROOT = Path(__file__).parents[2]
FILES, VENV = ROOT / "benchmarks" / "pyreft", ROOT / "build" / "pyreft-venv"
PYTHON = VENV / ("Scripts" if os.name == "nt" else "bin") / "python"
NEEDS = [FILES / "requirements.txt", FILES / "pyreft.txt"]
NOTE = """\
There: {versions}. torch is the one used above, so what the versions change is transformers' and PEFT's own Python: see
the floor's times and the base's. What pyreft adds is no matter of versions: each call computes the orthonormal R anew
from its Householder vectors, twice, in decode for every token; it copies the block's output, and writes the sum back in
place. f7+l7 is pyreft's usual choice, the prompt's first and last 7 tokens: it steers none of those generated.
"""


def measure(quick: bool) -> Iterator[Figure | Note]:
    """Make pyreft's environment on first use, and measure there."""
    try:
        environment()
        found = worker(quick)
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip() or f"exit status {error.returncode}").splitlines()[-1]
        yield Note(f"pyreft was not measured, `{' '.join(map(str, error.cmd[1:4]))} …` failed: {reason}")
        return
    for figure in found["figures"]:
        yield Figure(**figure)
    yield Note(NOTE.format(versions=", ".join(f"{name} {version}" for name, version in found["versions"].items())))


def environment() -> None:
    """Make the environment if there is none with what is needed now; one that was not finished is begun again."""
    needs, done = "".join(file.read_text() for file in NEEDS), VENV / "done"
    if done.exists() and done.read_text() == needs:
        return
    run(sys.executable, "-m", "venv", "--clear", VENV)
    install = (PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(*install, "-r", NEEDS[0])
    run(*install, "--no-deps", "-r", NEEDS[1])
    done.write_text(needs)


def worker(quick: bool) -> dict[str, Any]:
    """Run the worker, and return what it printed."""
    training, generation = ([TINY], [TINY]) if quick else ([SMALL, MIDDLE], [SMALL_ROW, SMALL_ROWS, MIDDLE_ROW])
    wanted = {
        "threads": torch.get_num_threads(),
        "training": [asdict(shape) for shape in training],
        "generation": [asdict(shape) for shape in generation],
        "rounds": 2 if quick else 15,
        "calls": 2 if quick else 4,
        "tokens": 4 if quick else 64,
    }
    return json.loads(run(PYTHON, "-m", "benchmarks.pyreft.worker", json.dumps(wanted)).splitlines()[-1])


def run(*command: str | Path) -> str:
    """Run a command in the repository's root, and return what it printed."""
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
