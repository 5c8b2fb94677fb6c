"""The folder of a comparison: one at a time, what is in it already, and what it need not keep."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from actshift.compare.cell import FAILURE, Cell, Record
from actshift.compare.protocol import SweepState
from actshift.errors import ActshiftError
from actshift.files import write_whole
from actshift.training import TrainSettings
from actshift.training.run_folder import RunFolder, read_json

WEIGHTS = "weights"


@dataclass(frozen=True)
class CompareFolder:
    """The folder `path`: the rows, a folder for each cell, and the table."""

    path: Path

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder; raise ActshiftError where another comparison does, or something else is in it."""
        from filelock import FileLock, Timeout

        if self.path.is_file():
            raise ActshiftError(f"{self.path} is a file; give a folder for the table.")
        if self.path.is_dir() and any(self.path.iterdir()) and not self.rows.is_dir():
            raise ActshiftError(f"{self.path} holds something other than a comparison; give a new or empty folder.")
        self.rows.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.rows / ".lock", timeout=0):
                yield
        except Timeout:
            raise ActshiftError(
                f"Another comparison is running in {self.path}; wait for it, or give another --out."
            ) from None

    @property
    def rows(self) -> Path:
        """Where the rows of the splits are; the first thing that a comparison makes."""
        return self.path / "rows"

    def weights(self, cell: Cell) -> Path:
        """Where the training of a cell leaves its result."""
        return cell.folder(self.path) / WEIGHTS

    def load(self, standing: SweepState, made_with: Mapping[Cell, Mapping[str, Any]]) -> None:
        """Add to `standing` what the folder has of its cells, of which `made_with` says how each must have been made.

        What failed is tried again, but for rates of a method whose choice stands.

        Raises ActshiftError for a record, or an unfinished training, made with other settings or rows.
        """
        for cell, wanted in made_with.items():
            if record := Record.read(cell.folder(self.path)):
                _check_same(record.made_with, wanted, cell.folder(self.path))
                standing.records[cell] = record
        for method in standing.methods:
            for cell in standing.sweep(method):
                failure = cell.folder(self.path) / FAILURE
                if standing.tested(method) and cell not in standing.records and failure.is_file():
                    standing.failed[cell] = read_json(failure)["error"]

    def check_unfinished(self, cell: Cell, settings: TrainSettings) -> None:
        """Raise ActshiftError where a training of the cell began with other settings."""
        run = RunFolder(self.weights(cell))
        if run.unfinished:
            run.check(settings, resume=True)

    def settle(self, cell: Cell, error: str | None, standing: SweepState) -> None:
        """Add to `standing` what a cell came to, and note a failure in its folder."""
        folder = cell.folder(self.path)
        record = Record.read(folder)
        if record is not None:
            standing.records[cell] = record
        elif error is None:
            error = "it left no record"
        if error is None:
            (folder / FAILURE).unlink(missing_ok=True)
        else:
            standing.failed[cell] = error
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(folder / FAILURE, json.dumps({"error": error}) + "\n")

    def drop_weights(self, standing: SweepState, keep_full: bool) -> None:
        """Remove the weights of the cells that lost, and of whole models once they are scored."""
        for method in standing.methods:
            done = [] if keep_full or method.settings.get("method") != "full" else standing.tested(method)
            for cell in [*standing.losers(method), *done]:
                shutil.rmtree(self.weights(cell), ignore_errors=True)


def made_with(settings: TrainSettings, **more: Any) -> dict[str, Any]:
    """Return all that decides what a cell comes to: its settings without the folders on this machine, and `more`."""
    values = {name: value for name, value in asdict(settings).items() if name not in ("data", "out", "eval_data")}
    return json.loads(json.dumps({**values, **more}))


def _check_same(stored: Mapping[str, Any], wanted: Mapping[str, Any], folder: Path) -> None:
    defaults = made_with(TrainSettings())
    for name, value in wanted.items():
        before = stored.get(name, defaults.get(name))
        if before != value:
            raise ActshiftError(
                f"{folder} was made with {name} {before!r}, not {value!r}; compare with the same settings, or into "
                "another --out."
            )
