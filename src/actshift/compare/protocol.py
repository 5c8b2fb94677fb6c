"""The order of work: sweep the learning rates with the first seed, then run the other seeds and the test rows."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from actshift.compare.cell import BASE_CELL, Cell, Record
from actshift.compare.methods import Method

FIRST_SEED = 0


@dataclass
class SweepState:
    """Progress of a comparison: the records of its cells, and the errors of the cells that failed."""

    methods: Sequence[Method]
    seeds: int
    records: dict[Cell, Record] = field(default_factory=lambda: {})
    failed: dict[Cell, str] = field(default_factory=lambda: {})

    def all_cells(self) -> list[Cell]:
        """Return every cell that the comparison could run."""
        seeds = range(FIRST_SEED, FIRST_SEED + self.seeds)
        grid = [Cell(method.name, rate, seed) for method in self.methods for rate in method.rates for seed in seeds]
        return [BASE_CELL, *grid]

    def sweep_cells(self, method: Method) -> list[Cell]:
        """Return the cells that choose the learning rate of a method."""
        return [Cell(method.name, rate, FIRST_SEED) for rate in method.rates]

    def tested_cells(self, method: Method) -> list[Cell]:
        """Return the cells of a method that were scored on the test rows."""
        return [cell for cell, record in self.records.items() if cell.method == method.name and record.test]

    def best_cell(self, method: Method) -> Cell | None:
        """Return the best cell of the sweep so far: highest validation accuracy, then lower loss, then lower rate."""
        finished = [cell for cell in self.sweep_cells(method) if cell in self.records]
        return max(finished, key=self._merit, default=None)

    def chosen_cell(self, method: Method) -> Cell | None:
        """Return the cell with the chosen learning rate, or None until the whole sweep is done.

        The choice is final once a test row was read; otherwise a later choice would have seen the test rows.
        """
        if tested := self.tested_cells(method):
            return tested[0]._replace(seed=FIRST_SEED)
        return self.best_cell(method) if all(map(self.is_closed, self.sweep_cells(method))) else None

    def seed_cells(self, method: Method) -> list[Cell]:
        """Return the cells of the chosen rate, one for each seed; empty until the rate is chosen."""
        cell = self.chosen_cell(method)
        return [cell._replace(seed=seed) for seed in range(FIRST_SEED, FIRST_SEED + self.seeds)] if cell else []

    def pending(self) -> Iterator[tuple[Cell, bool]]:
        """Yield the cells that can run now, in the order of the methods, each with True if the test rows are due."""
        if self._needs_test(BASE_CELL):
            yield BASE_CELL, True
        for method in self.methods:
            if cells := self.seed_cells(method):
                yield from ((cell, True) for cell in cells if self._needs_test(cell))
            else:
                yield from ((cell, False) for cell in self.sweep_cells(method) if not self.is_closed(cell))

    def beaten_cells(self, method: Method) -> list[Cell]:
        """Return the cells of the sweep that lost to another one; their weights are no longer needed."""
        best = self.chosen_cell(method) or self.best_cell(method)
        return [cell for cell in self.sweep_cells(method) if cell in self.records and cell != best]

    def total(self) -> int:
        """Return the number of all cells, including the ones that are not determined yet."""
        return 1 + sum(len(method.rates) + self.seeds - 1 for method in self.methods)

    def is_closed(self, cell: Cell) -> bool:
        """Return True if the cell has a record or failed."""
        return cell in self.records or cell in self.failed

    def _needs_test(self, cell: Cell) -> bool:
        return cell not in self.failed and (cell not in self.records or self.records[cell].test is None)

    def _merit(self, cell: Cell) -> tuple[float, float, float]:
        record = self.records[cell]
        loss = record.fit.eval_loss if record.fit and record.fit.eval_loss is not None else math.inf
        return record.validation.accuracy, -loss, -cell.rate
