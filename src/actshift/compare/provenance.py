"""When, where and with what figures were made."""

from __future__ import annotations

import os
import platform
from datetime import date
from importlib.metadata import version
from typing import Any

from actshift.compare.settings import CompareSettings
from actshift.training.settings import command_line

PACKAGES = ("actshift", "torch", "transformers", "peft", "trl")


def provenance(command: str) -> dict[str, Any]:
    """Return the command, the date, the machine and the versions, ready for JSON."""
    return {
        "command": command,
        "date": date.today().isoformat(),
        "machine": machine(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def machine() -> str:
    """Name what computes: the GPU, or the processor's kind and how many cores it has."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.machine()}, {os.cpu_count()} cores, no GPU"


def command(settings: CompareSettings) -> str:
    """Return the command line of a comparison.

    >>> command(CompareSettings(model="gpt2", data="rows.jsonl", out="table", seeds=2))
    'actshift compare --model gpt2 --data rows.jsonl --seeds 2 --out table'
    """
    return command_line("actshift compare", settings)
