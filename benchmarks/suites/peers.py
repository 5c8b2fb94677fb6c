"""pyreft needs older library versions, so it is measured in a separate process, interleaved with the floor, LoRA and
the base there. Only the ratios can be compared with those above. All generation here is by `generate`, because pyreft
has no other way to decode. Prefill is a call for one token, and a decode step is the time of each further token."""

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
Versions: {versions}. torch is the same as above, so the versions change only the Python code of transformers and PEFT;
compare the times of the floor and of the base. The overhead of pyreft does not come from versions. Each call recomputes
the orthonormal R from its Householder vectors, twice, and in decoding for every token. It also copies the block's
output, and writes the sum back in place. f7+l7 is pyreft's usual choice, the first and last 7 tokens of the prompt; it
steers no generated token.
"""


def measure(quick: bool) -> Iterator[Figure | Note]:
    """Create pyreft's environment on first use, and measure there."""
    try:
        environment()
        results = worker(quick)
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip() or f"exit status {error.returncode}").splitlines()[-1]
        yield Note(f"pyreft was not measured: `{' '.join(map(str, error.cmd[1:4]))} …` failed: {reason}")
        return
    for figure in results["figures"]:
        yield Figure(**figure)
    yield Note(NOTE.format(versions=", ".join(f"{name} {version}" for name, version in results["versions"].items())))


def environment() -> None:
    """Create the environment, unless a finished one with the current pins exists."""
    needs, done = "".join(file.read_text() for file in NEEDS), VENV / "done"
    if done.exists() and done.read_text() == needs:
        return
    run(sys.executable, "-m", "venv", "--clear", VENV)
    install = (PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(*install, "-r", NEEDS[0])
    run(*install, "--no-deps", "-r", NEEDS[1])
    done.write_text(needs)


def worker(quick: bool) -> dict[str, Any]:
    """Run the worker, and return the JSON that it prints."""
    training, generation = ([TINY], [TINY]) if quick else ([SMALL, MIDDLE], [SMALL_ROW, SMALL_ROWS, MIDDLE_ROW])
    request = {
        "threads": torch.get_num_threads(),
        "training": [asdict(shape) for shape in training],
        "generation": [asdict(shape) for shape in generation],
        "rounds": 2 if quick else 15,
        "calls": 2 if quick else 4,
        "tokens": 4 if quick else 64,
    }
    return json.loads(run(PYTHON, "-m", "benchmarks.pyreft.worker", json.dumps(request)).splitlines()[-1])


def run(*command: str | Path) -> str:
    """Run a command in the root of the repository, and return its standard output."""
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
