"""Write files atomically, check output paths, and read YAML and JSON mappings."""

import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from actshift.errors import ActshiftError

MAPPING_SUFFIXES = (".yaml", ".yml", ".json")  # of the files that `read_mapping` reads
MAX_MAPPING, MAX_VALUES, MAX_DEPTH = 1_000_000, 100_000, 100  # bytes, values and nesting of such a file
TOO_MANY = f"it has more than {MAX_VALUES:,} values, or is nested in itself or more than {MAX_DEPTH} times"


@contextmanager
def atomic_path(path: str | Path) -> Generator[Path, None, None]:
    """Yield a temporary path in the same folder, and rename its file to `path` at the end, or remove it on an error.

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp(), "note.txt")
    >>> with atomic_path(target) as temporary:
    ...     _ = temporary.write_text("done")
    >>> [file.name for file in target.parent.iterdir()]
    ['note.txt']
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically: `path` then has the old content or the new content, never a part of it.

    Raises:
        OSError: the folder is not writable, or the disk is full. No temporary file is left behind.

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp(), "note.txt")
    >>> write_atomically(target, "done")
    >>> target.read_text()
    'done'
    """
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())  # some file systems report a full disk only here


@contextmanager
def locked(path: str | Path, busy: str) -> Generator[None, None, None]:
    """Hold an exclusive lock on the file `path` inside a `with` block; the system releases it if the process dies.

    It is an flock, which Linux also keeps on NFS. File systems without it get a lock file with the holder's process id.

    Raises:
        ActshiftError: another process has the lock; `busy` is the message.
    """
    from filelock import FileLock, Timeout

    try:
        with FileLock(path, timeout=0):
            yield
    except Timeout:
        raise ActshiftError(busy) from None


def check_writable(path: str | Path) -> None:
    """Raise ActshiftError unless a file can be written at `path`. Call it before a long computation."""
    path = Path(path)
    if path.is_dir():
        raise ActshiftError(f"{path} is a folder. Give the name of a file to write.")
    if not path.parent.is_dir():
        raise ActshiftError(f"There is no folder {path.parent} to write {path.name} to. Create it first.")
    if not os.access(path.parent, os.W_OK):
        raise ActshiftError(f"The folder {path.parent} is not writable. Choose another one for {path.name}.")


def check_new_folder(path: str | Path) -> None:
    """Raise ActshiftError if `path` is a file or a folder that is not empty."""
    path = Path(path)
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise ActshiftError(f"{path} exists and is not empty. Give a new or empty folder.")


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
        names = [name for name, _ in pairs]
        raise ValueError(f"the name {next(name for name in names if names.count(name) > 1)!r} is repeated")
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
