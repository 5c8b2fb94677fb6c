"""Settings in a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from actshift.errors import ActshiftError


def read_config_file(path: str | Path) -> dict[str, Any]:
    """Return what a YAML or JSON file of settings says, not yet checked.

    Raises ActshiftError where there is no such file or it does not hold names with values.
    """
    import yaml

    try:
        text = Path(path).read_text(encoding="utf-8")
        values = json.loads(text) if Path(path).suffix.lower() == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise ActshiftError(f"The config file {path} cannot be read: {error.strerror}.") from error
    except (ValueError, yaml.YAMLError) as error:
        raise ActshiftError(f"The config file {path} is not valid: {' '.join(str(error).split())}.") from error
    if not isinstance(values, dict):
        raise ActshiftError(f"The config file {path} must hold one 'setting: value' a line.")
    return {str(name).replace("-", "_"): value for name, value in values.items()}
