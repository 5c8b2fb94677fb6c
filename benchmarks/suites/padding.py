"""The training rows of GSM8K in batches with three kinds of padding: the tokens of an epoch, and a training step on
three batches of different lengths. The paper's reference code pads every row to the maximum."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import TypeVar

from torch import Tensor
from torch.nn import functional as F

from actshift.data.collate import pad_batch
from actshift.data.encode import IGNORE_INDEX, encode
from actshift.loading import load_tokenizer
from actshift.tasks import get_task
from actshift.training.trainer import LengthGroupedSampler, lengths_of
from benchmarks.figure import Figure, Note
from benchmarks.methods import RANK, steering
from benchmarks.models import SMALL, TINY
from benchmarks.plain import training_steps
from benchmarks.timing import interleaved, milliseconds, ratios

SHARED = Path(__file__).parents[3] / "shared"
ROWS, TOKENIZER = SHARED / "data" / "gsm8k", SHARED / "models" / "stories260K"
LONGEST, BATCH = 512, 8
MAXIMUM, LONGEST_OF_BATCH, GROUPED = "every row to the maximum", "to the batch's longest", "batches of like length"
Batch = dict[str, Tensor]
T = TypeVar("T")


def measure(quick: bool) -> Iterator[Figure | Note]:
    """Count the tokens, and measure the CPU time of interleaved steps, for each kind of padding."""
    if missing := [str(folder) for folder in (ROWS, TOKENIZER) if not folder.is_dir()]:
        yield Note(f"Not measured: {' and '.join(missing)} not found.")
        return
    tokenizer = load_tokenizer(str(TOKENIZER))
    rows = get_task("gsm8k").load("train", str(ROWS.parent), form="text").select_columns(["prompt", "completion"])
    examples = encode(rows, tokenizer, LONGEST).examples
    lengths, shape = lengths_of(examples), TINY if quick else SMALL
    where = (
        f"{len(lengths):,} rows of at most {LONGEST} tokens, {BATCH} a batch; d {shape.width}, {shape.layers} layers"
    )
    drawn = in_batches(Random(0).sample(range(len(lengths)), len(lengths)))
    ways = {
        MAXIMUM: drawn,
        LONGEST_OF_BATCH: drawn,
        GROUPED: in_batches([*LengthGroupedSampler(lengths, BATCH, seed=0)]),
    }
    cases, count = {}, 1 if quick else 3
    for name, batches in ways.items():
        widths = [LONGEST if name == MAXIMUM else max(lengths[row] for row in batch) for batch in batches]
        tokens = sum(width * len(batch) for width, batch in zip(widths, batches, strict=True))
        yield Figure("tokens of an epoch", name, where, tokens / 1e6, unit="million")
        yield Figure("of these padding", name, where, 100 * (1 - sum(lengths) / tokens), unit="%")
        chosen = spread_out(sorted(zip(widths, batches, strict=True)), count)
        whole = [to_width(pad_batch([examples[row] for row in batch], tokenizer), width) for width, batch in chosen]
        cases[name] = training_steps(steering(rank=RANK)(shape.with_(vocabulary=512).model()), whole)
    samples = interleaved(cases, 1 if quick else 2, warmup=1, clock=time.process_time)
    yield from milliseconds(
        {name: [seconds / count for seconds in times] for name, times in samples.items()}, "step", where
    )
    yield from ratios(samples, MAXIMUM, "step over that of the maximum", where)


def in_batches(order: Sequence[int]) -> list[list[int]]:
    """Split rows into batches, in their order."""
    return [list(order[at : at + BATCH]) for at in range(0, len(order), BATCH)]


def spread_out(values: Sequence[T], count: int) -> list[T]:
    """Return the middle values of `count` equal parts of a sequence."""
    return [values[(2 * part + 1) * len(values) // (2 * count)] for part in range(count)]


def to_width(batch: Batch, width: int) -> Batch:
    """Pad a batch to `width` tokens per row."""
    return {
        name: F.pad(tensor, (0, width - tensor.shape[1]), value=IGNORE_INDEX if name == "labels" else 0)
        for name, tensor in batch.items()
    }
