"""Text, options for fast extractions, and pairs of models whose blocks differ."""

from __future__ import annotations

from typing import Any

from tests.analysis.twins import batches, moved
from tests.zoo import ARCHITECTURES

FAST: dict[str, Any] = {"nonlinear_steps": 0, "linear": False, "ranks": (1, 2, 4)}
TEXT = batches(count=6, batch=6, seq=12)


def with_changed_blocks(name: str = "llama"):
    base = ARCHITECTURES[name]()
    return base, moved(base, scale=0.1, part=".h." if name in ("gpt2", "falcon") else "layers.")


def with_changed_later_blocks():
    """A pair of models that agree up to and including the first block."""
    base, finetuned = with_changed_blocks()
    finetuned.model.layers[0].load_state_dict(base.model.layers[0].state_dict())
    return base, finetuned
