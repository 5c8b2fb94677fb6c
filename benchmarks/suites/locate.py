"""Time of `locate` per batch, over post-block's training step on the same batch. The decompositions at the end take the
same time for any number of batches above one; for a single batch there are fewer of them."""

from __future__ import annotations

from collections.abc import Iterator

from actshift.analysis.locate import locate
from benchmarks.figure import Figure, Note
from benchmarks.methods import METHODS, OURS
from benchmarks.models import SMALL, TINY
from benchmarks.plain import training_step
from benchmarks.timing import interleaved, milliseconds, ratios

STEP = f"training step, {OURS}"


def measure(quick: bool) -> Iterator[Figure | Note]:
    """Measure `locate` with and without the linear maps, on one batch and on several."""
    shape = TINY if quick else SMALL
    batch, model = {"input_ids": shape.ids, "labels": shape.ids}, shape.model()
    cases, batches = {STEP: training_step(METHODS[OURS](shape.model()), shape)}, {STEP: 1}
    for count in (1, 8):
        for scope, weights in (("sites alone", False), ("sites and linear maps", True)):
            name = f"locate, {count} batch{'es' if count > 1 else ''}, {scope}"
            batches[name] = count
            cases[name] = lambda count=count, weights=weights: locate(model, [batch] * count, weights=weights)
    samples = interleaved(cases, rounds=2 if quick else 5, warmup=1)
    each = {name: [second / batches[name] for second in seconds] for name, seconds in samples.items()}
    yield from milliseconds(each, "a batch", str(shape))
    yield from ratios(each, STEP, "over the training step", str(shape))
