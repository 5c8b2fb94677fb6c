from __future__ import annotations

from random import Random

import pytest

from actshift.training.trainer import LengthGroupedSampler

LENGTHS = [Random(0).randrange(5, 90) for _ in range(50)]


def batches(sampler: LengthGroupedSampler, epoch: int) -> list[tuple[int, ...]]:
    sampler.set_epoch(epoch)
    rows = list(sampler)
    return [tuple(rows[at : at + 8]) for at in range(0, len(rows), 8)]


def test_each_epoch_reads_every_row_once_in_the_same_batches_in_another_order():
    sampler = LengthGroupedSampler(LENGTHS, batch_size=8, seed=0)
    first, second = batches(sampler, 0), batches(sampler, 1)
    assert sorted(row for batch in first for row in batch) == list(range(50)) and len(sampler) == 50
    assert first != second and set(first) == set(second)
    assert first[-1] == second[-1] and len(first[-1]) == 2
    assert batches(LengthGroupedSampler(LENGTHS, batch_size=8, seed=0), 1) == second
    assert set(batches(LengthGroupedSampler(LENGTHS, batch_size=8, seed=1), 0)) != set(first)


def test_little_is_padded_and_rows_of_one_length_are_mixed():
    whole = batches(LengthGroupedSampler(LENGTHS, batch_size=8, seed=0), 0)[:-1]
    padded = sum(8 * max(LENGTHS[row] for row in batch) for batch in whole)
    assert padded < 1.2 * sum(LENGTHS[row] for batch in whole for row in batch)
    assert any(
        list(batch) != sorted(batch) for batch in batches(LengthGroupedSampler([7] * 24, batch_size=8, seed=0), 0)
    )


@pytest.mark.parametrize("rows", [0, 1, 7, 8])
def test_few_rows_are_read_too(rows):
    assert sorted(LengthGroupedSampler(LENGTHS[:rows], batch_size=8, seed=0)) == list(range(rows))
