"""What a run was made on: versions, threads, and how busy the machine was with other things."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "transformers", "peft", "trl", "accelerate")


def machine() -> dict[str, Any]:
    """Return the processor, the versions, the threads and the commit, ready for JSON."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        "commit": _commit(),
    }


@contextmanager
def conditions() -> Iterator[dict[str, Any]]:
    """Yield a record that is filled in at the end: when, how long, the load, and the share of one core that was had.

    On one thread a share well below 1 says that other work took the core, and that the times are no good.
    """
    record: dict[str, Any] = {"date": datetime.now().isoformat(timespec="minutes")}
    load, wall, cpu = os.getloadavg()[0], time.perf_counter(), _cpu_seconds()
    yield record
    seconds = time.perf_counter() - wall
    record |= {
        "seconds": round(seconds),
        "load": [round(load, 2), round(os.getloadavg()[0], 2)],
        "share": round((_cpu_seconds() - cpu) / max(1, seconds), 2),
    }


def _cpu_seconds() -> float:
    """Return what this process has had of all cores, with those that it started and that have ended."""
    return sum(os.times()[:4])


def _processor() -> str:
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text().splitlines() if cpus.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


def _commit() -> str:
    here = Path(__file__).parent
    found = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True)
    return found.stdout.strip() or "unknown"
