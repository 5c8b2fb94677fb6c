"""Adapt language models by shifting their activations, as a PEFT method.

Importing this package imports neither torch nor peft. The public names are loaded on first use, and the PEFT method
registers itself when peft is imported.

    import actshift
    from peft import get_peft_model
    model = get_peft_model(model, actshift.SteeringConfig(rank=8))
"""

import ast
from importlib import import_module
from pathlib import Path
from typing import Any

from actshift._post_import import after_import

# Type checkers read the stub, and so does this file, so each public name is listed once. This is the pattern of SPEC 1
# (https://scientific-python.org/specs/spec-0001/).
_stub = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
_imports = [node for node in _stub.body if isinstance(node, ast.ImportFrom)]
_modules = {alias.asname or alias.name: node.module or "" for node in _imports for alias in node.names}

__all__ = sorted([*_modules, "__version__"])  # pyright: ignore[reportUnsupportedDunderAll]  the stub lists the names


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    if name == "__version__":
        from importlib.metadata import version  # takes longer than all other imports of this file

        return version("actshift")
    if name not in _modules:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_modules[name]), name)


after_import("peft", "actshift.tuner.peft_patches")
