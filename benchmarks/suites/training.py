"""Forward, backward and AdamW on one batch, one thread; the floor is forward and backward down to the first steered
block's output, without an adapter or an optimiser."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.figure import Figure, Note
from benchmarks.methods import FLOOR, FROZEN, LORA, METHODS, floor, forward_only, training_step
from benchmarks.models import MIDDLE, SMALL, TINY, Shape
from benchmarks.timing import interleaved, milliseconds, ratios

OVER_FLOOR, OVER_LORA = "step over the floor", "step over LoRA"


def measure(quick: bool) -> Iterator[Figure | Note]:
    """Measure every method's step on a small model and on a wider one."""
    for shape in (TINY,) if quick else (SMALL, MIDDLE):
        yield from steps(shape, rounds=2 if quick else 15)


def steps(shape: Shape, rounds: int) -> Iterator[Figure]:
    """Yield the times of all steps, and their ratios to the floor's and to LoRA's."""
    cases = {FROZEN: forward_only(shape.model(), shape), FLOOR: training_step(floor(shape.model()), shape)}
    cases |= {name: training_step(method(shape.model()), shape) for name, method in METHODS.items()}
    samples = interleaved(cases, rounds)
    yield from milliseconds(samples, "step", str(shape))
    yield from ratios(samples, FLOOR, OVER_FLOOR, str(shape))
    yield from ratios(samples, LORA, OVER_LORA, str(shape))
