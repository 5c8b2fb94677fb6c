"""Forward, backward and AdamW on one batch and one thread. The floor is forward and backward down to the output of the
first steered block, without an adapter or an optimiser. "kept" is the memory that the forward pass to the logits saves
for the backward pass. "peak" is the peak memory of the first two steps. Both exclude the weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from benchmarks.figure import Figure, Note
from benchmarks.memory import kept_bytes, peak_bytes
from benchmarks.methods import METHODS, Method
from benchmarks.models import MIDDLE, SMALL, TINY, Shape
from benchmarks.plain import FLOOR, FROZEN, LORA, floor, forward_only, training_step
from benchmarks.timing import interleaved, milliseconds, ratios

OVER_FLOOR, OVER_LORA = "step over the floor", "step over LoRA"
ALL: dict[str, Method] = {FLOOR: floor, **METHODS}
MIB = 2**20


def measure(quick: bool) -> Iterator[Figure | Note]:
    """Measure the step of every method on a small model (also with a batch of one row) and on a wider one."""
    for shape in (TINY,) if quick else (SMALL, SMALL.with_(batch=1), MIDDLE):
        yield from steps(shape, rounds=2 if quick else 15)
    for shape in (TINY,) if quick else (SMALL, MIDDLE):
        yield from peaks(shape)
        yield from kept(shape)


def steps(shape: Shape, rounds: int) -> Iterator[Figure]:
    """Yield the times of all steps, and their ratios to the floor and to LoRA."""
    cases = {FROZEN: forward_only(shape.model(), shape)}
    cases |= {name: training_step(method(shape.model()), shape) for name, method in ALL.items()}
    samples = interleaved(cases, rounds)
    yield from milliseconds(samples, "step", str(shape))
    yield from ratios(samples, FLOOR, OVER_FLOOR, str(shape))
    yield from ratios(samples, LORA, OVER_LORA, str(shape))


def peaks(shape: Shape) -> Iterator[Figure]:
    """Yield the peak memory of each method, and its ratio to the floor."""
    by_method = {name: peak_bytes(training_step(method(shape.model()), shape)) for name, method in ALL.items()}
    yield from sizes(by_method, "peak", str(shape))


def kept(shape: Shape) -> Iterator[Figure]:
    """Yield the memory that each method saves for the backward pass, for each dtype of the model."""
    for title, weights, autocast in (
        ("float32", torch.float32, None),
        ("bfloat16 by autocast", torch.float32, torch.bfloat16),
        ("bfloat16, weights too", torch.bfloat16, None),
    ):
        by_method = {
            name: kept_bytes(method(shape.model().to(weights)).train(), shape.ids, autocast)
            for name, method in ALL.items()
        }
        yield from sizes(by_method, "kept", f"{shape}, {title}")


def sizes(by_method: Mapping[str, int], name: str, where: str) -> Iterator[Figure]:
    """Yield bytes as MiB, and as ratios to the floor."""
    for case, size in by_method.items():
        yield Figure(name, case, where, size / MIB, unit="MiB")
        if case != FLOOR:
            yield Figure(f"{name} over the floor", case, where, size / by_method[FLOOR])
