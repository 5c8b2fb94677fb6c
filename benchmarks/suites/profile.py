"""A training step and a decode step by operation, next to the floor and the base: medians over interleaved steps. The
profiler adds microseconds to each operation, so its times are only for comparing parts. "Outside of operations" is
Python, autograd bookkeeping and dispatch. The arithmetic of a product is 2·m·n·k."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter
from statistics import median
from typing import NamedTuple

import torch
from torch.profiler import ProfilerActivity
from torch.profiler import profile as profiler
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.figure import Figure, Note
from benchmarks.methods import METHODS, OURS
from benchmarks.models import SMALL, TINY
from benchmarks.page import table
from benchmarks.plain import BASE, FLOOR, floor, training_step
from benchmarks.suites.generation import Greedy, twin
from benchmarks.timing import Spread, interleaved, over

Step = Callable[[], object]
PREFIX, PRODUCTS, SHOWN = "aten::", ("mm", "addmm", "bmm", "baddbmm"), 12


class Profile(NamedTuple):
    """Milliseconds of a step, of its optimiser and of each operation, and the number of calls of each operation."""

    whole: float
    optimizer: float
    operations: Counter[str]
    calls: Counter[str]

    @property
    def outside(self) -> float:
        """Milliseconds outside of all operations."""
        return self.whole - sum(self.operations.values())

    @property
    def products(self) -> float:
        """Milliseconds of matrix products."""
        return sum(self.operations[name] for name in PRODUCTS)


WHOLE, OPTIMIZER = attrgetter("whole"), attrgetter("optimizer")
IN_PRODUCTS, OUTSIDE = attrgetter("products"), attrgetter("outside")


def measure(quick: bool) -> Iterator[Figure | Note]:
    """Profile a training step, and a decoding step of one row."""
    shape, steps = (TINY, 2) if quick else (SMALL, 15)
    methods = {FLOOR: floor, OURS: METHODS[OURS]}
    training = {name: training_step(method(shape.model()), shape) for name, method in methods.items()}
    yield from compared(training, f"A training step, {shape}", "floor", steps)
    row_shape = shape.with_(batch=1)
    base = row_shape.model().requires_grad_(False)
    rows = {BASE: Greedy(base, row_shape.ids), OURS: Greedy(METHODS[OURS](twin(base)).eval(), row_shape.ids)}
    with torch.no_grad():
        for row in rows.values():
            row.prefill()
        decoding = {name: row.step for name, row in rows.items()}
        yield from compared(decoding, f"A decode step, {row_shape}", "base", 4 * steps)


def compared(cases: Mapping[str, Step], where: str, short: str, steps: int) -> Iterator[Figure | Note]:
    """Yield the parts of a step of two cases, and their difference. `short` is the name of the first case in notes."""
    base, ours = cases
    slower = over(interleaved(cases, 2 * steps), ours, base)
    recorded: dict[str, list[Profile]] = {name: [] for name in cases}
    for _ in range(steps):
        for name, step in cases.items():
            recorded[name].append(profiled(step))
    flops = {name: arithmetic(step) for name, step in cases.items()}
    for name, profiles in recorded.items():
        yield Figure("under the profiler", name, where, typical(profiles, WHOLE), unit="ms")
        yield Figure("products", name, where, typical(profiles, IN_PRODUCTS), unit="ms")
        yield Figure("outside of operations", name, where, typical(profiles, OUTSIDE), unit="ms")
        yield Figure("operations", name, where, sum(profiles[-1].calls.values()), unit="calls")
        yield Figure("arithmetic", name, where, flops[name] / 1e6, unit="MFLOP")
    yield Note(f"**{where}.** {summary(recorded[base], recorded[ours], short, slower, flops[ours] / flops[base])}")
    yield Note(operations(recorded[base], recorded[ours], short))


def profiled(step: Step) -> Profile:
    """Run a step under the profiler."""
    with profiler(activities=[ProfilerActivity.CPU]) as record:
        start = time.perf_counter()
        step()
        whole = time.perf_counter() - start
    events = {event.key: event for event in record.key_averages()}
    own = {key.removeprefix(PREFIX): event for key, event in events.items() if key.startswith(PREFIX)}
    return Profile(
        whole=1000 * whole,
        optimizer=sum(event.cpu_time_total for key, event in events.items() if key.startswith("Optimizer.")) / 1000,
        operations=Counter({key: event.self_cpu_time_total / 1000 for key, event in own.items()}),
        calls=Counter({key: event.count for key, event in own.items()}),
    )


def typical(profiles: Sequence[Profile], part: Callable[[Profile], float]) -> float:
    """Return the median, because other work sometimes interrupts an operation."""
    return median(map(part, profiles))


def arithmetic(step: Step) -> int:
    """Return the number of floating-point operations in the products of a step."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def summary(base: Sequence[Profile], ours: Sequence[Profile], short: str, times: Spread, arithmetic: float) -> str:
    """Return a sentence on the difference between ours and the base, with the ratios of time and arithmetic."""
    whole, products, outside = (typical(ours, part) - typical(base, part) for part in (WHOLE, IN_PRODUCTS, OUTSIDE))
    optimizer = typical(ours, OPTIMIZER)
    stepping = f"The optimiser, which the {short} does not have, takes {optimizer:.2f} ms. " if optimizer else ""
    return (
        f"Without the profiler {OURS} takes {times.value:.3f} times as long as the {short} ({times.low:.3f} to "
        f"{times.high:.3f}), for {arithmetic:.4f} times the arithmetic, the ratio if all of it ran at the speed of the "
        f"{short}. {stepping}The rest is thin products, which run below that speed, and the operations and calls "
        f"around them: under the profiler {whole:+.2f} ms in all, {products:+.2f} in products, "
        f"{whole - products - outside:+.2f} in other operations and {outside:+.2f} outside of operations."
    )


def operations(base: Sequence[Profile], ours: Sequence[Profile], short: str) -> str:
    """Return a Markdown table of the operations that take longest and of those that differ most."""
    times = {
        key: tuple(typical(profiles, lambda profile, key=key: profile.operations[key]) for profiles in (base, ours))
        for key in ours[-1].operations
    }
    longest = sorted(times, key=lambda key: -times[key][1])[:SHOWN]
    differing = sorted(times, key=lambda key: -abs(times[key][1] - times[key][0]))[: SHOWN // 2]
    rows = []
    for key in dict.fromkeys([*longest, *differing]):
        cells = [key]
        for profiles, time_taken in zip((base, ours), times[key], strict=True):
            cells += [str(profiles[-1].calls[key]), f"{time_taken:.3f}", f"{time_taken / typical(profiles, WHOLE):.1%}"]
        rows.append(cells)
    return table(["operation", f"{short}, calls", "ms", "share", f"{OURS}, calls", "ms", "share"], rows)
