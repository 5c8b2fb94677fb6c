"""Three epochs of `actshift train` over rows of one length, the upper half of the blocks steered: with
`--cache-prefix memory` and `disk`, over the same run without. The first epoch computes the prefix in any case."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from actshift.demo import load_base
from actshift.encoding import Encoded
from actshift.training import TrainSettings
from actshift.training.encoding import Examples
from actshift.training.job import Job
from actshift.training.objectives import OBJECTIVES
from actshift.training.run_folder import RunFolder
from benchmarks.figure import Figure, Note
from benchmarks.methods import OURS, RANK, steering
from benchmarks.models import SMALL, TINY, Shape
from benchmarks.timing import interleaved, over, spread

EPOCHS = 3
PLAIN, ON_DISK, EVERY = "without the cache", f"{OURS}, on disk", "every block steered"


def measure(quick: bool) -> Iterator[Figure | Note]:
    """Train with and without, in turns, by the CPU's time."""
    shape, batches, rounds = (TINY, 2, 2) if quick else (SMALL, 10, 3)
    where = f"{shape}, {EPOCHS} epochs of {batches} batches"
    losses: dict[str, float] = {}

    def case(name: str, cache: str, first: int) -> Any:
        def run() -> None:
            losses[name] = train(shape, batches, cache, first)

        return run

    half = shape.layers // 2
    cases = {
        PLAIN: case(PLAIN, "off", half),
        OURS: case(OURS, "memory", half),
        ON_DISK: case(ON_DISK, "disk", half),
        EVERY: case(EVERY, "off", 0),
    }
    samples = interleaved(cases, rounds, warmup=0 if quick else 1, clock=time.process_time)
    for name in (OURS, ON_DISK, EVERY):
        yield Figure("over the plain run", name, where, *over(samples, name, PLAIN))
    for name in (OURS, ON_DISK):
        later = [
            (one - plain / EPOCHS) / (plain * (1 - 1 / EPOCHS))
            for one, plain in zip(samples[name], samples[PLAIN], strict=True)
        ]
        yield Figure("an epoch after the first, over the plain run's", name, where, *spread(later))
        yield Figure("over every block steered", name, where, *over(samples, name, EVERY))
    same = losses[OURS] == losses[PLAIN] == losses[ON_DISK]
    yield Note(f"The last loss is {'the same to the bit' if same else f'not the same: {losses}'} in all three runs.")


def train(shape: Shape, batches: int, cache: str, first: int) -> float:
    """Train the blocks from `first` on, and return the last loss."""
    rows = shape.with_(batch=shape.batch * batches).ids.tolist()
    examples = Examples(OBJECTIVES["sft"], Encoded([{"input_ids": row, "labels": row} for row in rows], 0), None)
    settings = TrainSettings(
        epochs=EPOCHS,
        batch_size=shape.batch,
        gradient_accumulation=1,
        group_by_length=True,
        cache_prefix=cache,  # type: ignore[arg-type]
    )
    model = steering(rank=RANK, layers=list(range(first, shape.layers)))(shape.model())
    with TemporaryDirectory() as folder:
        job = Job(RunFolder(Path(folder)), load_base()[1], examples, settings, resume=False, keep=False)
        job.begin(model)
        return job.run(model).train_loss
