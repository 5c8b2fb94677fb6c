"""actshift: adapt language models by shifting their activations, as a first-class PEFT method.

Importing this package costs neither torch nor peft: its names load on first use, and the PEFT method
registers itself at the moment somebody imports peft.

    import actshift
    from peft import get_peft_model
    model = get_peft_model(model, actshift.SteeringConfig(rank=8))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from actshift._post_import import after_import
from actshift.errors import ActshiftError

if TYPE_CHECKING:
    __version__: str
    from actshift.adapters import Adapter, DiReFT, HeadScale, HeadVector, JoLA, LoReFT, LowRank, NoReFT, Vector
    from actshift.adapters.fused import fused_kernels
    from actshift.analysis import redundancy
    from actshift.analysis.batches import token_batches
    from actshift.analysis.contrast import contrast
    from actshift.analysis.equivalence import equivalence
    from actshift.analysis.extract import extract
    from actshift.analysis.folding import merged
    from actshift.analysis.locate import locate
    from actshift.gradients import gradient_init
    from actshift.orthogonality import Orthogonality
    from actshift.sites import Positions
    from actshift.tuner import (
        Intervention,
        JointConfig,
        SteeringConfig,
        attach,
        enforce,
        halves,
        load_adapter,
        orthogonality_violations,
        parameter_groups,
        prompt_lengths,
        save_half,
        set_halves,
        set_strength,
        start_from,
        strength,
    )

_HOME = {
    "Adapter": "actshift.adapters",
    "DiReFT": "actshift.adapters",
    "HeadScale": "actshift.adapters",
    "HeadVector": "actshift.adapters",
    "JoLA": "actshift.adapters",
    "LoReFT": "actshift.adapters",
    "LowRank": "actshift.adapters",
    "NoReFT": "actshift.adapters",
    "Vector": "actshift.adapters",
    "Orthogonality": "actshift.orthogonality",
    "Positions": "actshift.sites",
    "Intervention": "actshift.tuner",
    "JointConfig": "actshift.tuner",
    "SteeringConfig": "actshift.tuner",
    "attach": "actshift.tuner",
    "contrast": "actshift.analysis.contrast",
    "enforce": "actshift.tuner",
    "equivalence": "actshift.analysis.equivalence",
    "extract": "actshift.analysis.extract",
    "fused_kernels": "actshift.adapters.fused",
    "gradient_init": "actshift.gradients",
    "halves": "actshift.tuner",
    "load_adapter": "actshift.tuner",
    "locate": "actshift.analysis.locate",
    "merged": "actshift.analysis.folding",
    "orthogonality_violations": "actshift.tuner",
    "parameter_groups": "actshift.tuner",
    "prompt_lengths": "actshift.tuner",
    "redundancy": "actshift.analysis",
    "save_half": "actshift.tuner",
    "set_halves": "actshift.tuner",
    "set_strength": "actshift.tuner",
    "start_from": "actshift.tuner",
    "strength": "actshift.tuner",
    "token_batches": "actshift.analysis.batches",
}

__all__ = [
    "ActshiftError",
    "Adapter",
    "DiReFT",
    "HeadScale",
    "HeadVector",
    "Intervention",
    "JoLA",
    "JointConfig",
    "LoReFT",
    "LowRank",
    "NoReFT",
    "Orthogonality",
    "Positions",
    "SteeringConfig",
    "Vector",
    "__version__",
    "attach",
    "contrast",
    "enforce",
    "equivalence",
    "extract",
    "fused_kernels",
    "gradient_init",
    "halves",
    "load_adapter",
    "locate",
    "merged",
    "orthogonality_violations",
    "parameter_groups",
    "prompt_lengths",
    "redundancy",
    "save_half",
    "set_halves",
    "set_strength",
    "start_from",
    "strength",
    "token_batches",
]


def __getattr__(name: str) -> Any:
    """Import the module that holds a public name when the name is first asked for."""
    if name == "__version__":
        from importlib.metadata import version  # costs more than all else that is imported here

        return version("actshift")
    if name not in _HOME:
        raise AttributeError(f"module 'actshift' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)


after_import("peft", "actshift.tuner.register")
