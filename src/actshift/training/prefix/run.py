"""The cache of a run's prefix: whether it can have one, and for the length of its training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from actshift.encoding import padded
from actshift.training.arguments import uses_bf16
from actshift.training.like_lengths import LikeLengths, lengths_of
from actshift.training.prefix.blocks import find_prefix
from actshift.training.prefix.cache import CachedPrefix
from actshift.training.prefix.check import check_exact, check_worth
from actshift.training.prefix.store import GIB, InMemory, OnDisk
from actshift.training.settings import TrainSettings

if TYPE_CHECKING:
    from actshift.training.job import Job

LOOKED_AT = 2
"""How many rows the check before a run reads."""


def check_prefix(model: Any, job: Job) -> None:
    """Raise ActshiftError where the cache that a job asks for has nothing to keep, or would not be exact."""
    examples = job.examples
    check_worth(job.settings, len(examples.train.examples), job.steps)
    prefix = find_prefix(model)
    rows = examples.objective.read(examples.train, job.tokenizer)[:LOOKED_AT]
    device = next(model.parameters()).device
    batch = {name: tensor.to(device) for name, tensor in padded(rows, job.tokenizer).items()}
    check_exact(model, prefix, batch)


def cached_prefix(model: Any, job: Job) -> AbstractContextManager[Any]:
    """Return what has a job's prefix cached while it is entered; what does nothing where it asks for no cache."""
    settings = job.settings
    if settings.cache_prefix == "off":
        return nullcontext()
    limit = settings.cache_limit * GIB
    store = InMemory(limit) if settings.cache_prefix == "memory" else OnDisk(limit, job.folder.checkpoints)
    return CachedPrefix(find_prefix(model), store)


def cache_bytes(
    adapted: Any, settings: TrainSettings, examples: Sequence[Mapping[str, Any]], steps: int, width: int
) -> int:
    """Return what the cache of a run will hold of the training rows in bytes, 0 where it asks for none.

    It is Σ rows · longest · width over the batches, × 2 (bf16) or 4 (fp32), as far as the limit goes.

    Raises ActshiftError where there is nothing to keep.
    """
    if settings.cache_prefix == "off":
        return 0
    check_worth(settings, len(examples), steps)
    find_prefix(adapted)
    lengths = lengths_of(examples)
    sampler = LikeLengths(lengths, settings.batch_size, settings.seed)
    batches = [batch for batch in (*sampler.batches, sampler.rest) if batch]
    tokens = sum(len(batch) * max(lengths[row] for row in batch) for batch in batches)
    return min(tokens * width * (2 if uses_bf16(settings) else 4), int(settings.cache_limit * GIB))
