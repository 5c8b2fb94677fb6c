"""Read YAML and JSON files that contain one mapping."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from actshift.errors import ActshiftError, first_repeated

MAPPING_SUFFIXES = (".yaml", ".yml", ".json")  # of the files that `read_mapping` reads
MAX_MAPPING, MAX_VALUES, MAX_DEPTH = 1_000_000, 100_000, 100  # bytes, values and nesting of such a file
TOO_MANY = f"it has more than {MAX_VALUES:,} values, or is nested in itself or more than {MAX_DEPTH} times"


def read_mapping(path: str | Path, what: str) -> dict[str, Any]:
    """Return the mapping in a YAML or JSON file. `what` names the file in messages, such as "task file".

    Raises:
        ActshiftError: the file does not exist, is not valid YAML or JSON, or does not contain a mapping.
    """
    import yaml

    try:
        size = Path(path).stat().st_size if Path(path).is_file() else None
        if size is None and Path(path).exists():
            raise ActshiftError(f"The {what} {path} is not a file.")
        if size and size > MAX_MAPPING:
            raise ActshiftError(f"The {what} {path} has {size:,} bytes, and at most {MAX_MAPPING:,} are read.")
        text = Path(path).read_text(encoding="utf-8-sig")
        is_json = Path(path).suffix.lower() == ".json"
        values: Any = json.loads(text, object_pairs_hook=_unique) if is_json else yaml.load(text, _yaml_loader())
        _check_size(values)
    except OSError as error:
        raise ActshiftError(f"The {what} {path} cannot be read: {error.strerror}.") from error
    except RecursionError:
        raise ActshiftError(f"The {what} {path} is not valid: its values are nested too deeply.") from None
    except (ValueError, TypeError, yaml.YAMLError) as error:
        if isinstance(error, ActshiftError):
            raise
        raise ActshiftError(f"The {what} {path} is not valid: {' '.join(str(error).split())}.") from error
    if not isinstance(values, dict):
        raise ActshiftError(f"The {what} {path} must contain one 'name: value' per line.")
    return {str(name): value for name, value in values.items()}


def _unique(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """Return the pairs as a dict, or raise ValueError if two have the same name."""
    if len(values := dict(pairs)) < len(pairs):
        raise ValueError(f"the name {first_repeated(name for name, _ in pairs)!r} is repeated")
    return values


@cache
def _yaml_loader() -> Any:
    """Return a safe loader that refuses repeated names."""
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_mapping_node(self, anchor: Any) -> Any:
            node = super().compose_mapping_node(anchor)
            _unique([(key.value, None) for key, _ in node.value if isinstance(key.value, str)])
            return node

    return Loader


def _check_size(values: Any) -> None:
    """Raise ValueError if references to earlier values (`*name` in YAML) make a file huge or endless."""
    waiting, seen = [(values, 0)], 0
    while waiting:
        value, depth = waiting.pop()
        seen += 1
        if seen > MAX_VALUES or depth > MAX_DEPTH:
            raise ValueError(TOO_MANY)
        if isinstance(value, dict | list | tuple | set):
            children = [*value, *value.values()] if isinstance(value, dict) else [*value]
            waiting += [(child, depth + 1) for child in children]
