"""Three epochs of `actshift train` on rows of one length, with the upper half of the blocks steered and
`--cache-prefix memory` or `disk`. The ratios are to a run that steers every block, and to a run that steers the same
half without the cache. Counted in passes through a block, the first epoch takes 8 forward and 3 backward passes and
each later one 3 and 3. Each epoch takes 11 passes without the cache, and 15 if every block is steered. The lower bounds
are therefore 23/33 = 0.70 and 23/45 = 0.51. The head comes on top, because the cache does not avoid it. A pass through
the head costs as much as 2.6 blocks with 8,192 tokens in the vocabulary, and 0.65 with 2,048, its share in
Llama-3-8B."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from actshift.data.encode import Encoded
from actshift.demo import load_base
from actshift.training import TrainSettings
from actshift.training.fit import TrainingRun
from actshift.training.objectives import OBJECTIVES, Examples
from actshift.training.run_folder import RunFolder
from benchmarks.figure import Figure, Note
from benchmarks.methods import OURS, RANK, steering
from benchmarks.models import SMALL, TINY, Shape
from benchmarks.timing import interleaved, over, spread

EPOCHS = 3
PLAIN, ON_DISK, EVERY = "without the cache", f"{OURS}, on disk", "every block steered"


def measure(quick: bool) -> Iterator[Figure | Note]:
    """Train with two vocabulary sizes. With the smaller one the head has its share in large models."""
    if quick:
        yield from trained(TINY, batches=2, rounds=2, warmup=0)
        return
    for vocabulary in (2048, SMALL.vocabulary):
        yield from trained(SMALL.with_(vocabulary=vocabulary), batches=8, rounds=3, warmup=1)


def trained(shape: Shape, batches: int, rounds: int, warmup: int) -> Iterator[Figure | Note]:
    """Yield ratios of CPU times of interleaved runs. Models are built and checked before the measurement."""
    where = f"{shape}, {shape.vocabulary:,} in the vocabulary, {EPOCHS} epochs of {batches} batches"
    half, losses = shape.layers // 2, {}
    kinds = {PLAIN: ("off", half), OURS: ("memory", half), ON_DISK: ("disk", half), EVERY: ("off", 0)}
    with TemporaryDirectory() as folder:
        cases = {}
        for name, kind in kinds.items():
            ready = [
                prepared_job(shape, batches, *kind, Path(folder, name, str(turn))) for turn in range(warmup + rounds)
            ]
            cases[name] = training(name, ready, losses)
        samples = interleaved(cases, rounds, warmup, clock=time.process_time)
    for name in (OURS, ON_DISK, EVERY):
        yield Figure("over the same half, plain", name, where, *over(samples, name, PLAIN))
    for name in (OURS, ON_DISK):
        later = [
            (cached - plain / EPOCHS) / (plain * (1 - 1 / EPOCHS))
            for cached, plain in zip(samples[name], samples[PLAIN], strict=True)
        ]
        yield Figure("a later epoch, over the plain half's", name, where, *spread(later))
        yield Figure("over every block steered", name, where, *over(samples, name, EVERY))
    same = losses[OURS] == losses[PLAIN] == losses[ON_DISK]
    yield Note(
        f"{where}: the last loss with the cache is {'bit-identical to' if same else f'different ({losses}) from'} the "
        "one without."
    )


def training(name: str, ready: list[tuple[TrainingRun, Any]], losses: dict[str, float]) -> Callable[[], None]:
    """Return a function that trains the next prepared model and stores the last loss."""

    def run() -> None:
        job, model = ready.pop()
        losses[name] = job.train(model).train_loss

    return run


def prepared_job(shape: Shape, batches: int, cache: str, first: int, folder: Path) -> tuple[TrainingRun, Any]:
    """Return a job that is ready to train, and its model, steered from block `first` upwards."""
    rows = shape.with_(batch=shape.batch * batches).ids.tolist()
    encoded = Encoded([{"input_ids": row, "labels": row} for row in rows], 0)
    examples = Examples(encoded, None, load_base()[1])
    settings = TrainSettings(
        epochs=EPOCHS,
        batch_size=shape.batch,
        gradient_accumulation=1,
        group_by_length=True,
        cache_prefix=cache,  # type: ignore[arg-type]
    )
    model = steering(rank=RANK, layers=list(range(first, shape.layers)))(shape.model())
    job = TrainingRun(RunFolder(folder), OBJECTIVES["sft"], examples, settings, resume=False, keep=False)
    job.start(model)
    return job, model
