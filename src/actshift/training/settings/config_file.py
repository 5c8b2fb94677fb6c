"""Settings in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actshift.mapping_file import read_mapping


def read_config_file(path: str | Path) -> dict[str, Any]:
    """Return what a YAML or JSON file of settings says, not yet checked; a dash in a name is an underscore.

    Raises ActshiftError where there is no such file or it does not hold names with values.
    """
    return {name.replace("-", "_"): value for name, value in read_mapping(path, "config file").items()}
