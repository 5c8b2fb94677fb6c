"""Write files whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from actshift.errors import ActshiftError


def write_whole(path: str | Path, text: str) -> None:
    """Write UTF-8 `text` to `path`, so that there is the former file or the new one, and never a part of it.

    Raises OSError where the folder cannot be written to or is full; nothing is then left behind.

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp(), "note.txt")
    >>> write_whole(target, "done")
    >>> target.read_text()
    'done'
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())  # on a full disk some file systems say so only here
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def check_writable(path: str | Path) -> None:
    """Raise ActshiftError unless a file can be written at `path`; ask before hours are spent on it."""
    path = Path(path)
    if path.is_dir():
        raise ActshiftError(f"{path} is a folder; give the name of a file to write.")
    if not path.parent.is_dir():
        raise ActshiftError(f"There is no folder {path.parent} to write {path.name} to; make it first.")
    if not os.access(path.parent, os.W_OK):
        raise ActshiftError(f"The folder {path.parent} cannot be written to; choose another for {path.name}.")


def check_new_folder(path: str | Path) -> None:
    """Raise ActshiftError where `path` is a file, or a folder that holds something."""
    path = Path(path)
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise ActshiftError(f"{path} holds something already; give a new or empty folder.")


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
