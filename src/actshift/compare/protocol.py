"""The order of work: every rate with the first seed, the best by validation, then that one's other seeds and the test.

Pure bookkeeping, without a model or a file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from actshift.compare.cell import BASE_CELL, Cell, Record
from actshift.compare.methods import Method

FIRST_SEED = 0


class PendingCell(NamedTuple):
    """Bring a cell to its record, and score it on the test rows if `test`."""

    cell: Cell
    test: bool


@dataclass
class SweepState:
    """How far a comparison is: the records of its cells, and why others failed."""

    methods: Sequence[Method]
    seeds: int
    records: dict[Cell, Record] = field(default_factory=dict)
    failed: dict[Cell, str] = field(default_factory=dict)

    def sweep(self, method: Method) -> list[Cell]:
        """The cells that choose the learning rate of a method."""
        return [Cell(method.name, rate, FIRST_SEED) for rate in method.rates]

    def tested(self, method: Method) -> list[Cell]:
        """The cells of a method that were scored on the test rows."""
        return [cell for cell, record in self.records.items() if cell.method == method.name and record.test]

    def best(self, method: Method) -> Cell | None:
        """The best cell of the sweep so far: by validation accuracy, then lower loss, then lower rate."""
        done = [cell for cell in self.sweep(method) if cell in self.records]
        return max(done, key=self._merit, default=None)

    def chosen(self, method: Method) -> Cell | None:
        """The cell whose rate was chosen; None before all of the sweep is done.

        Once test rows were read the choice stands, or a later one would have seen them.
        """
        if tested := self.tested(method):
            return tested[0]._replace(seed=FIRST_SEED)
        settled = all(cell in self.records or cell in self.failed for cell in self.sweep(method))
        return self.best(method) if settled else None

    def repeats(self, method: Method) -> list[Cell]:
        """The cells that the table is about, one a seed; none before the rate is chosen."""
        cell = self.chosen(method)
        return [cell._replace(seed=seed) for seed in range(FIRST_SEED, FIRST_SEED + self.seeds)] if cell else []

    def open_tasks(self) -> Iterator[PendingCell]:
        """Yield what can be done now, in the order of the methods."""
        if BASE_CELL not in self.failed and not self._is_tested(BASE_CELL):
            yield PendingCell(BASE_CELL, test=True)
        for method in self.methods:
            if repeats := self.repeats(method):
                yield from (
                    PendingCell(cell, test=True)
                    for cell in repeats
                    if cell not in self.failed and not self._is_tested(cell)
                )
            else:
                yield from (
                    PendingCell(cell, test=False)
                    for cell in self.sweep(method)
                    if cell not in self.records and cell not in self.failed
                )

    def losers(self, method: Method) -> list[Cell]:
        """The cells of the sweep that another has beaten, whose weights nobody will ask for."""
        best = self.chosen(method) or self.best(method)
        return [cell for cell in self.sweep(method) if cell in self.records and cell != best]

    def cells(self) -> int:
        """How many cells there are in all, those not yet known included."""
        return 1 + sum(len(method.rates) + self.seeds - 1 for method in self.methods)

    def done(self) -> int:
        """How many cells have their record."""
        return len(self.records)

    def _is_tested(self, cell: Cell) -> bool:
        return cell in self.records and self.records[cell].test is not None

    def _merit(self, cell: Cell) -> tuple[float, float, float]:
        record = self.records[cell]
        loss = record.fit.eval_loss if record.fit and record.fit.eval_loss is not None else math.inf
        return record.validation.accuracy, -loss, -cell.rate
