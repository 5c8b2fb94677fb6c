"""Batches of rows of like length: the same batches in every epoch, in another order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from random import Random
from typing import Any

from torch.utils.data import Sampler


class LikeLengths(Sampler[int]):
    """Rows one after another, so that each `batch_size` of them are of like length.

    The rows are cut into batches once, and each epoch reads the batches in an order of its own: transformers'
    sampler goes from long to short through 50 batches at a time. The rows that fill no batch are drawn, and come last.

    >>> sampler = LikeLengths([5, 1, 4, 2], batch_size=2, seed=0)
    >>> sorted(sorted(batch) for batch in sampler.batches)
    [[0, 2], [1, 3]]
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        rows = list(range(len(lengths)))
        Random(seed).shuffle(rows)  # the sort is stable, so rows of one length stay shuffled
        whole = len(rows) - len(rows) % batch_size
        ordered, self.rest = sorted(rows[:whole], key=lengths.__getitem__), rows[whole:]
        self.batches = [ordered[at : at + batch_size] for at in range(0, whole, batch_size)]
        self.seed, self.epoch = seed, 0

    def __len__(self) -> int:
        return sum(map(len, self.batches)) + len(self.rest)

    def __iter__(self) -> Iterator[int]:
        order = Random(f"{self.seed}, {self.epoch}").sample(self.batches, len(self.batches))
        yield from (row for batch in order for row in batch)
        yield from self.rest

    def set_epoch(self, epoch: int) -> None:
        """Have the next pass read the batches in the order of this epoch; a resumed run finds it again so."""
        self.epoch = epoch


def length_of(example: Mapping[str, Any]) -> int:
    """Return the length in tokens of an example, or of the longer one of its texts.

    >>> length_of({"input_ids": [5, 6], "pair_input_ids": [7], "labels": 1})
    2
    """
    return max(len(value) for value in example.values() if isinstance(value, list))


def lengths_of(examples: Iterable[Mapping[str, Any]]) -> list[int]:
    """Return the length of each example."""
    return [length_of(example) for example in examples]
