"""The conditions of a run: versions, threads, and the load of the machine."""

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
    """Yield a record that is filled in at the end: date, duration, load, and the share of one core that was used.

    On one thread, a share well below 1 means that other work used the core and that the times are not reliable.
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
    """Return the CPU time of this process and of the child processes that have ended."""
    return sum(os.times()[:4])


def _processor() -> str:
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text().splitlines() if cpus.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


def _commit() -> str:
    here = Path(__file__).parent
    described = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True)
    return described.stdout.strip() or "unknown"
