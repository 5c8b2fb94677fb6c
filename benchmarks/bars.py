"""The bars, set before the first measurement, and the reasons for missed bars."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.figure import Figure
from benchmarks.methods import JOINT, OURS


@dataclass(frozen=True)
class Bar:
    """A limit on a figure.

    Attributes:
        text: the description in the table of bars.
        suite, name, case: the suite, column and row of the figure.
        where: the start of the title of its tables.
        most: the largest allowed value.
        reason: why the bar is missed.
    """

    text: str
    suite: str
    name: str
    case: str
    where: str
    most: float
    reason: str = ""

    def figures(self, figures: Iterable[Figure]) -> list[Figure]:
        """Return the figures of a suite that this bar applies to."""
        return [
            figure
            for figure in figures
            if (figure.name, figure.case) == (self.name, self.case) and figure.where.startswith(self.where)
        ]


STEP, LORA = f"training step, {OURS}, over the floor", f"training step, {OURS}, over LoRA r=8 on all linear maps"
JOINTLY = "training step, joint with the constraint over LoRA alone"
KEPT = f"bytes kept for the backward pass, {OURS}, over the floor"
THOUSAND = "1,000 adapters r=8"
ONE_ROW = (
    "with one row of 128 tokens the small operations of the shift, its gradients and AdamW are visible next to those "
    "of a block; a vector, which computes nothing, accounts for more than half of it"
)
OUT_OF_REACH = "the floor itself is close to the bar (see the table below), and an adapter adds to it"
ABOVE_THE_BAR = "the floor itself takes 0.87 of LoRA's step here, where LoRA takes only 1.14 of the floor"
PURE = "here a norm saves a float32 copy of its input, so only the adapter needs the bfloat16 sum"
HEAD = (
    "the cache does not avoid the head, and with 8,192 tokens over d 256 a pass of the head costs as much as 2.6 of "
    "the 8 blocks; the bar is met if the head has the share that it has in large models"
)
BARS = (
    Bar(STEP, "training", "step over the floor", OURS, "d 256, 8 layers, 4", 1.04),
    Bar(STEP, "training", "step over the floor", OURS, "d 256, 8 layers, 1", 1.04, ONE_ROW),
    Bar(STEP, "training", "step over the floor", OURS, "d 768", 1.02),
    Bar(LORA, "training", "step over LoRA", OURS, "d 256", 0.72, OUT_OF_REACH),
    Bar(LORA, "training", "step over LoRA", OURS, "d 768", 0.82, OUT_OF_REACH),
    Bar(f"SmolLM2: {STEP}", "real", "step over the floor", OURS, "", 1.04),
    Bar(f"SmolLM2: {LORA}", "real", "step over LoRA", OURS, "", 0.84, ABOVE_THE_BAR),
    Bar("SmolLM2: decode, batch 1, over the base", "real", "decode over the base", OURS, "", 1.03),
    Bar(JOINTLY, "training", "step over LoRA", JOINT, "d ", 1.05),
    Bar(KEPT, "training", "kept over the floor", OURS, "d ", 1.03, PURE),
    Bar(
        "decode, batch 1, over the base",
        "generation",
        "decode over the base",
        OURS,
        "batch 1, d 256",
        1.05,
        "the rest is four kernels per block (half of it) and the Python around them; three runs gave 1.046 to 1.052",
    ),
    Bar(
        "decode on a GPU, compiled, over the base",
        "gpu",
        "decode over the base, compiled",
        OURS,
        "batch 1",
        1.03,
        "no GPU was available",
    ),
    Bar(
        "decode, 16 different adapters in a batch of 16, over one adapter",
        "generation",
        "16 different adapters over one",
        OURS,
        "batch 16, d 256",
        1.10,
    ),
    Bar(
        f"{THOUSAND} attached: memory over their own bytes",
        "adapters",
        "memory over own bytes",
        THOUSAND,
        "d ",
        1.2,
        "16 kB of tensors come with 3.7 kB of Python and C++ objects: three modules with the dictionaries that "
        "nn.Module needs, two tensors, and an eighth of PEFT's config",
    ),
    Bar(f"{THOUSAND} attached: a switch", "adapters", "switch", THOUSAND, "d ", 1),
    Bar(
        "steps to the target loss, the default over the reference init",
        "adaptation",
        "steps over the reference init",
        OURS,
        "",
        0.7,
        "each at its best rate: there AdamW moves W_down past the small init within about ten steps (our explanation); "
        "the default is ahead at low rates. Larger inits, and a higher rate for W_up, were not better with one seed",
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
        HEAD,
    ),
)
"""All bars, in the order of the page."""
