"""The public names of the package: none is lost, and each one loads."""

from __future__ import annotations

import actshift

PUBLIC_NAMES = [
    "Ablation",
    "ActshiftError",
    "Adapter",
    "DiReFT",
    "GatedVector",
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
    "calibrate",
    "contrast",
    "enforce",
    "equivalence",
    "extract",
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


def test_no_public_name_is_lost() -> None:
    assert sorted(PUBLIC_NAMES) == actshift.__all__ == dir(actshift)


def test_every_public_name_loads() -> None:
    assert all(getattr(actshift, name) is not None for name in PUBLIC_NAMES)
