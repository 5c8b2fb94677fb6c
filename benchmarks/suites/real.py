"""SmolLM2-135M-Instruct in float32 on one thread. The floor, the steps and the memory are as in the suites above. The
batch of a step has 4 rows of 32 tokens, and decoding continues one row of 64 tokens. All models share the weights of
the base, and LoRA is not merged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from actshift.errors import ActshiftError
from actshift.loading import load_model
from benchmarks.figure import Figure, Note
from benchmarks.memory import peak_bytes
from benchmarks.methods import JOINT, LINEAR, METHODS, OURS, VECTOR
from benchmarks.models import TINY, Shape
from benchmarks.plain import FLOOR, LORA, floor, training_step
from benchmarks.suites.generation import generation, twin
from benchmarks.suites.training import OVER_FLOOR, OVER_LORA, sizes
from benchmarks.timing import interleaved, milliseconds, ratios
from scripts.real_models import model_folder

COMPARED = (VECTOR, LINEAR, OURS, JOINT, LORA)


@dataclass(frozen=True)
class SmolLM2(Shape):
    """SmolLM2 with a batch of random tokens."""

    width: int = 576
    layers: int = 30
    batch: int = 4
    seq: int = 32
    vocabulary: int = 49_152

    def model(self) -> Any:
        """Return a copy that shares the weights of the other copies."""
        return twin(_base())


@cache
def _base() -> Any:
    return load_model(model_folder("smollm2"), dtype="float32", device="cpu")[0].requires_grad_(False)


def measure(quick: bool) -> Iterator[Figure | Note]:
    """Measure a training step, its peak memory, and generation."""
    try:
        shape = TINY if quick else SmolLM2()
        shape.model()
    except ActshiftError as error:
        yield Note(f"SmolLM2 was not measured: {error}")
        return
    models = {FLOOR: floor(shape.model())} | {name: METHODS[name](shape.model()) for name in COMPARED}
    samples = interleaved({name: training_step(model, shape) for name, model in models.items()}, 2 if quick else 11)
    where = str(shape)
    yield from milliseconds(samples, "step", where)
    yield from ratios(samples, FLOOR, OVER_FLOOR, where)
    yield from ratios(samples, LORA, OVER_LORA, where)
    peaks = {name: peak_bytes(training_step(model, shape)) for name, model in models.items()}
    yield from sizes(peaks, "peak", where)
    row = shape.with_(batch=1, seq=16 if quick else 64)
    yield from generation(row, COMPARED, calls=2 if quick else 3, tokens=4 if quick else 48)
