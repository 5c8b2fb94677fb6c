"""![How it grows](growth.png)

One quantity grows at a time. Steps and peaks are ratios to the floor of the same model and batch, as above. Adapters
share the 16 rows of a batch equally, and are compared to the base without adapters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from actshift.errors import require
from benchmarks.figure import Figure, Note
from benchmarks.memory import peak_bytes
from benchmarks.methods import Method, steering
from benchmarks.models import SMALL, TINY, Shape
from benchmarks.plain import BASE, FLOOR, RANK, floor, lora, training_step
from benchmarks.suites.generation import adapters, in_turns, twin
from benchmarks.timing import interleaved, over

START = SMALL.with_(layers=4, batch=2)
AXES: dict[str, tuple[str, tuple[int, ...]]] = {
    "rank": ("rank", (1, 8, 64, 256)),
    "layers": ("layers", (2, 4, 8, 16)),
    "width": ("width d", (128, 256, 512, 768)),
    "seq": ("tokens a row", (64, 128, 256, 512)),
}
ROWS, NUMBERS = 16, (1, 2, 4, 8, 16)
KINDS: dict[str, Callable[[int], Method]] = {
    "post-block": lambda rank: steering(rank=rank),
    "LoRA": lambda rank: partial(lora, rank=rank),
}


def measure(quick: bool) -> Iterator[Figure | Note]:
    """Measure growing rank, depth, width, length and number of adapters."""
    require("matplotlib", "plot")  # fail early, because the figure is drawn at the end
    start, rounds = (TINY, 2) if quick else (START, 9)
    for axis, (title, values) in AXES.items():
        for value in values[:2] if quick else values:
            rank, shape = (value, start) if axis == "rank" else (RANK, start.with_(**{axis: value}))
            yield from step(shape, rank, f"{title}, else {start}", str(value), rounds)
    numbers = NUMBERS[-2:] if quick else NUMBERS
    yield from mixed(start.with_(batch=ROWS, seq=start.seq // 4), numbers, rounds)


def step(shape: Shape, rank: int, where: str, case: str, rounds: int) -> Iterator[Figure]:
    """Yield the time and the peak memory of both methods over the floor."""
    methods = {FLOOR: floor, **{name: method_of(rank) for name, method_of in KINDS.items()}}
    cases = {name: training_step(method(shape.model()), shape) for name, method in methods.items()}
    samples = interleaved(cases, rounds)
    peaks = {name: peak_bytes(training_step(method(shape.model()), shape)) for name, method in methods.items()}
    for name in KINDS:
        yield Figure(f"{name}, step", case, where, *over(samples, name, FLOOR))
        yield Figure(f"{name}, peak memory", case, where, peaks[name] / peaks[FLOOR])


def mixed(shape: Shape, numbers: Sequence[int], rounds: int) -> Iterator[Figure]:
    """Yield prefill and decode times over the base, by the number of adapters in the batch."""
    base = shape.model().requires_grad_(False)
    models: dict[tuple[str, int], Any] = {
        (name, number): method_of(RANK)(twin(base)).eval() for name, method_of in KINDS.items() for number in numbers
    }
    with ExitStack() as stack:
        for (_, number), model in models.items():
            names = [adapter for adapter in adapters(model, number) for _ in range(shape.batch // number)]
            stack.enter_context(model.base_model._enable_peft_forward_hooks(adapter_names=names))
        prefill, decode = in_turns({BASE: base, **models}, shape, rounds, 4 * rounds)
    for phase, samples in {"prefill": prefill, "decode": decode}.items():
        for name, number in models:
            where = f"adapters in a batch of {shape.batch}, {shape}"
            yield Figure(f"{name}, {phase}", str(number), where, *over(samples, (name, number), BASE))
