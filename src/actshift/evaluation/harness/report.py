"""What lm-eval-harness found."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class HarnessReport:
    """What lm-eval found: `figures` is its own dictionary of results, which prints as a table and goes to JSON."""

    figures: dict[str, Any]

    def scores(self) -> Iterator[tuple[str, str, float, float | None]]:
        """Yield every score: the task, lm-eval's name of the measure, its value, and its standard error if known."""
        for task, measures in self.figures["results"].items():
            for name, value in measures.items():
                measure, _, filtered = name.partition(",")
                if isinstance(value, int | float) and not measure.endswith("_stderr") and filtered:
                    error = measures.get(f"{measure}_stderr,{filtered}")
                    label = measure if filtered == "none" else f"{measure} ({filtered})"
                    yield task, label, value, error if isinstance(error, int | float) else None

    def to_json(self) -> str:
        """Return all that lm-eval says, as it writes it."""
        return json.dumps(self.figures, indent=2, ensure_ascii=False, default=str) + "\n"

    def __rich__(self) -> Table:
        """Return the scores as a table."""
        from rich.table import Table

        table = Table("task", "measure", "score", "± stderr", box=None, pad_edge=False)
        for task, measure, value, error in self.scores():
            table.add_row(task, measure, f"{value:.4f}", "–" if error is None else f"{error:.4f}")
        return table
