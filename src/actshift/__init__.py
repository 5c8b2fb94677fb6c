"""Adapt language models by shifting their activations, as a PEFT method.

Importing this package imports neither torch nor peft. The public names are loaded on first use, and the PEFT method
registers itself when peft is imported.

    import actshift
    from peft import get_peft_model
    model = get_peft_model(model, actshift.SteeringConfig(rank=8))
"""

from __future__ import annotations

from typing import Any

from actshift._lazy import lazy_exports
from actshift._post_import import after_import

_load_name, __dir__, __all__ = lazy_exports(__name__, __file__)


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    if name == "__version__":
        from importlib.metadata import version  # takes longer than all other imports of this file

        return version("actshift")
    return _load_name(name)


after_import("peft", "actshift.tuner.peft_patches")
