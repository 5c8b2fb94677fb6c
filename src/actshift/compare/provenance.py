"""Record how a result was produced: command, date, machine, versions."""

import os
import platform
from datetime import date
from importlib.metadata import version
from typing import Any

PACKAGES = ("actshift", "torch", "transformers", "peft", "trl")


def provenance(command: str) -> dict[str, Any]:
    """Return `command`, the date, the machine and the package versions as JSON values."""
    versions = {name: version(name) for name in PACKAGES}
    return {"command": command, "date": date.today().isoformat(), "machine": machine(), "versions": versions}


def machine() -> str:
    """Return the name of the GPU, or the processor type and its number of cores."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.machine()}, {os.cpu_count()} cores, no GPU"
