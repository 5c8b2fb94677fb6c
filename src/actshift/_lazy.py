"""Packages whose public names are loaded on first use."""

from __future__ import annotations

import ast
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any


def lazy_exports(package: str, init_file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return `__getattr__`, `__dir__` and `__all__` for a package whose public names are listed in its `__init__.pyi`.

    Type checkers read the stub, and this function reads the same stub at run time. Each public name is therefore
    listed once. This is the pattern of SPEC 1 (https://scientific-python.org/specs/spec-0001/).

    >>> import actshift
    >>> _, _, names = lazy_exports("actshift", actshift.__file__)
    >>> "SteeringConfig" in names
    True
    """
    stub = ast.parse(Path(init_file).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    homes = {alias.asname or alias.name: node.module or "" for node in imports for alias in node.names}

    def load_name(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(homes[name]), name)

    names = sorted(homes)
    return load_name, lambda: names, names
