"""actshift: adapt language models by shifting their activations, as a first-class PEFT method.

Importing this package costs neither torch nor peft: its names load on first use, and the PEFT method
registers itself at the moment somebody imports peft.

    import actshift
    from peft import get_peft_model
    model = get_peft_model(model, actshift.SteeringConfig(rank=8))
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from actshift._post_import import after_import
from actshift.errors import ActshiftError

if TYPE_CHECKING:
    from actshift.adapters import Adapter, LowRank, Vector
    from actshift.tuner import SteeringConfig, attach, load_adapter, set_strength, strength

__version__ = version("actshift")

_HOME = {
    "Adapter": "actshift.adapters",
    "LowRank": "actshift.adapters",
    "Vector": "actshift.adapters",
    "SteeringConfig": "actshift.tuner",
    "attach": "actshift.tuner",
    "load_adapter": "actshift.tuner",
    "set_strength": "actshift.tuner",
    "strength": "actshift.tuner",
}

__all__ = [
    "ActshiftError",
    "Adapter",
    "LowRank",
    "SteeringConfig",
    "Vector",
    "__version__",
    "attach",
    "load_adapter",
    "set_strength",
    "strength",
]


def __getattr__(name: str) -> Any:
    """Import the module that holds a public name when the name is first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module 'actshift' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)


after_import("peft", "actshift.tuner.register")
