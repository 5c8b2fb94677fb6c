"""The bars that were set before anything was measured, and what is said of those that are missed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.figure import Figure
from benchmarks.methods import JOINT, OURS


@dataclass(frozen=True)
class Bar:
    """A figure that must not exceed `most`; `where` is how its table's title begins, `reason` why it is missed."""

    text: str
    suite: str
    name: str
    case: str
    where: str
    most: float
    reason: str = ""

    def figures(self, found: Iterable[Figure]) -> list[Figure]:
        """Return which of a suite's figures it is about."""
        return [
            one for one in found if (one.name, one.case) == (self.name, self.case) and one.where.startswith(self.where)
        ]


STEP, LORA = f"training step, {OURS}, over the floor", f"training step, {OURS}, over LoRA r=8 on all linear maps"
THOUSAND = "1,000 adapters r=8"
BARS = (
    Bar(STEP, "training", "step over the floor", OURS, "d 256", 1.04),
    Bar(STEP, "training", "step over the floor", OURS, "d 768", 1.02),
    Bar(LORA, "training", "step over LoRA", OURS, "d 256", 0.72),
    Bar(LORA, "training", "step over LoRA", OURS, "d 768", 0.82),
    Bar("training step, joint with the constraint over LoRA alone", "training", "step over LoRA", JOINT, "d ", 1.05),
    Bar(
        f"bytes kept for the backward pass, {OURS}, over the floor", "training", "kept over the floor", OURS, "d ", 1.03
    ),
    Bar("decode, batch 1, over the base", "generation", "decode over the base", OURS, "batch 1, d 256", 1.05),
    Bar("decode on a GPU, compiled, over the base", "gpu", "decode over the base, compiled", OURS, "batch 1,", 1.03),
    Bar(
        "decode, 16 different adapters in a batch of 16, over one adapter",
        "generation",
        "16 different adapters over one",
        OURS,
        "batch 16, d 256",
        1.10,
    ),
    Bar(f"{THOUSAND} attached: memory over their own bytes", "adapters", "memory over own bytes", THOUSAND, "d ", 1.2),
    Bar(f"{THOUSAND} attached: a switch", "adapters", "switch", THOUSAND, "d ", 1),
    Bar(
        "steps to the target loss, the default over the reference init",
        "adaptation",
        "steps over the reference init",
        OURS,
        "",
        0.7,
    ),
    Bar("`actshift --help`", "startup", "start-up", "actshift --help", "", 0.3),
    Bar("`import actshift` over `import torch`", "startup", "over import torch", "import actshift", "", 1.05),
    Bar(
        "three epochs of the upper half with the prefix cached, over every block steered",
        "cache_prefix",
        "over every block steered",
        OURS,
        "",
        0.65,
    ),
)
"""Section B of the issue, and section C's bar for the cached prefix."""
