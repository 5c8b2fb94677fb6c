"""Names with values in a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from actshift.errors import ActshiftError

ENDINGS = (".yaml", ".yml", ".json")


def read_mapping(path: str | Path, what: str) -> dict[str, Any]:
    """Return what a YAML or JSON file says; `what` names it in messages, as in "task file".

    Raises ActshiftError where there is no such file or it does not hold names with values.
    """
    import yaml

    try:
        text = Path(path).read_text(encoding="utf-8")
        values = json.loads(text) if Path(path).suffix.lower() == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise ActshiftError(f"The {what} {path} cannot be read: {error.strerror}.") from error
    except (ValueError, yaml.YAMLError) as error:
        raise ActshiftError(f"The {what} {path} is not valid: {' '.join(str(error).split())}.") from error
    if not isinstance(values, dict):
        raise ActshiftError(f"The {what} {path} must hold one 'name: value' a line.")
    return {str(name): value for name, value in values.items()}
