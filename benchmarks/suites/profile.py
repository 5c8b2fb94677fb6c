"""A training step and a decode step by operation, beside the floor's and the base's: medians over steps in turns. The
profiler adds microseconds to each operation, so that its times are for comparing parts; outside of operations is
Python, autograd's bookkeeping and dispatch. A product's arithmetic is 2·m·n·k."""

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
    """Milliseconds of a step as a whole, of its optimiser and of each operation, and how often each was called."""

    whole: float
    optimizer: float
    operations: Counter[str]
    calls: Counter[str]

    @property
    def outside(self) -> float:
        """What no operation accounts for."""
        return self.whole - sum(self.operations.values())

    @property
    def products(self) -> float:
        """What products of matrices take."""
        return sum(self.operations[name] for name in PRODUCTS)


WHOLE, OPTIMIZER = attrgetter("whole"), attrgetter("optimizer")
IN_PRODUCTS, OUTSIDE = attrgetter("products"), attrgetter("outside")


def measure(quick: bool) -> Iterator[Figure | Note]:
    """Profile a step of training on a batch, and of decoding one row."""
    shape, steps = (TINY, 2) if quick else (SMALL, 15)
    methods = {FLOOR: floor, OURS: METHODS[OURS]}
    training = {name: training_step(method(shape.model()), shape) for name, method in methods.items()}
    yield from compared(training, f"A training step, {shape}", "floor", steps)
    one = shape.with_(batch=1)
    base = one.model().requires_grad_(False)
    rows = {BASE: Greedy(base, one.ids), OURS: Greedy(METHODS[OURS](twin(base)).eval(), one.ids)}
    with torch.no_grad():
        for row in rows.values():
            row.prefill()
        yield from compared({name: row.step for name, row in rows.items()}, f"A decode step, {one}", "base", 4 * steps)


def compared(cases: Mapping[str, Step], where: str, short: str, steps: int) -> Iterator[Figure | Note]:
    """Yield what a step of either case is made of, and what the second has beyond the first, called `short`."""
    base, ours = cases
    slower = over(interleaved(cases, 2 * steps), ours, base)
    found: dict[str, list[Profile]] = {name: [] for name in cases}
    for _ in range(steps):
        for name, step in cases.items():
            found[name].append(profiled(step))
    flops = {name: arithmetic(step) for name, step in cases.items()}
    for name, profiles in found.items():
        yield Figure("under the profiler", name, where, typical(profiles, WHOLE), unit="ms")
        yield Figure("products", name, where, typical(profiles, IN_PRODUCTS), unit="ms")
        yield Figure("outside of operations", name, where, typical(profiles, OUTSIDE), unit="ms")
        yield Figure("operations", name, where, sum(profiles[-1].calls.values()), unit="calls")
        yield Figure("arithmetic", name, where, flops[name] / 1e6, unit="MFLOP")
    yield Note(f"**{where}.** {left(found[base], found[ours], short, slower, flops[ours] / flops[base])}")
    yield Note(operations(found[base], found[ours], short))


def profiled(step: Step) -> Profile:
    """Run a step under the profiler."""
    with profiler(activities=[ProfilerActivity.CPU]) as record:
        began = time.perf_counter()
        step()
        whole = time.perf_counter() - began
    events = {event.key: event for event in record.key_averages()}
    own = {key.removeprefix(PREFIX): event for key, event in events.items() if key.startswith(PREFIX)}
    return Profile(
        whole=1000 * whole,
        optimizer=sum(event.cpu_time_total for key, event in events.items() if key.startswith("Optimizer.")) / 1000,
        operations=Counter({key: event.self_cpu_time_total / 1000 for key, event in own.items()}),
        calls=Counter({key: event.count for key, event in own.items()}),
    )


def typical(profiles: Sequence[Profile], part: Callable[[Profile], float]) -> float:
    """Return the median: now and then something else takes the core in the middle of an operation."""
    return median(map(part, profiles))


def arithmetic(step: Step) -> int:
    """Return the floating-point operations of a step's products."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def left(base: Sequence[Profile], ours: Sequence[Profile], short: str, times: Spread, arithmetic: float) -> str:
    """Say what stands between the base and ours, `times` as long without the profiler, with so many times its sums."""
    whole, products, outside = (typical(ours, part) - typical(base, part) for part in (WHOLE, IN_PRODUCTS, OUTSIDE))
    optimizer = typical(ours, OPTIMIZER)
    stepping = f"The optimiser, which the {short} has not, takes {optimizer:.2f} ms. " if optimizer else ""
    return (
        f"Without the profiler {OURS} takes {times.value:.3f} times as long as the {short} ({times.low:.3f} to "
        f"{times.high:.3f}), for {arithmetic:.4f} times the arithmetic, which is the ratio if all of it ran at the "
        f"{short}'s pace. {stepping}What is left is thin products below that pace, what stands around them, and calls: "
        f"under the profiler {whole:+.2f} ms in all, {products:+.2f} in products, "
        f"{whole - products - outside:+.2f} in other operations and {outside:+.2f} outside of them."
    )


def operations(base: Sequence[Profile], ours: Sequence[Profile], short: str) -> str:
    """Return the operations that take longest, and those that differ most, as a table in Markdown."""
    times = {
        key: tuple(typical(profiles, lambda one, key=key: one.operations[key]) for profiles in (base, ours))
        for key in ours[-1].operations
    }
    longest = sorted(times, key=lambda key: -times[key][1])[:SHOWN]
    differing = sorted(times, key=lambda key: -abs(times[key][1] - times[key][0]))[: SHOWN // 2]
    rows = []
    for key in dict.fromkeys([*longest, *differing]):
        cells = [key]
        for profiles, taken in zip((base, ours), times[key], strict=True):
            cells += [str(profiles[-1].calls[key]), f"{taken:.3f}", f"{taken / typical(profiles, WHOLE):.1%}"]
        rows.append(cells)
    return table(["operation", f"{short}, calls", "ms", "share", f"{OURS}, calls", "ms", "share"], rows)
