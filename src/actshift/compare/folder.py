"""The folder of a comparison: its lock, the results in it, and the removal of weights that are no longer needed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from actshift.compare.cell import FAILURE, Cell, Record
from actshift.compare.protocol import SweepState
from actshift.errors import ActshiftError
from actshift.files import write_whole
from actshift.training import TrainSettings
from actshift.training.run_folder import read_json

WEIGHTS = "weights"


@dataclass(frozen=True)
class CompareFolder:
    """The folder `path` with the rows, one folder for each cell, and the table."""

    path: Path

    @contextmanager
    def locked(self) -> Generator[None]:
        """Lock the folder for one comparison.

        Raises:
            ActshiftError: if another comparison runs in the folder, or if the folder has other contents.
        """
        from filelock import FileLock, Timeout

        if self.path.is_file():
            raise ActshiftError(f"{self.path} is a file. Give a folder for the table.")
        if self.path.is_dir() and any(self.path.iterdir()) and not self.rows.is_dir():
            raise ActshiftError(f"{self.path} holds something other than a comparison. Give a new or empty folder.")
        self.rows.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.rows / ".lock", timeout=0):
                yield
        except Timeout:
            raise ActshiftError(
                f"Another comparison is running in {self.path}. Wait for it, or give another --out."
            ) from None

    @property
    def rows(self) -> Path:
        """Folder of the splits; a comparison creates it before anything else."""
        return self.path / "rows"

    def weights(self, cell: Cell) -> Path:
        """Return the output folder of a cell's training."""
        return cell.folder(self.path) / WEIGHTS

    def load(self, state: SweepState, made_with: Mapping[Cell, Mapping[str, Any]]) -> None:
        """Add the results in the folder to `state`.

        A failure counts only if its method has met the test rows without the cell; other failed cells run again.

        Args:
            made_with: for each cell, the settings that its record must have been made with.

        Raises:
            ActshiftError: if a record was made with other settings or rows.
        """
        for cell, expected in made_with.items():
            if record := Record.read(cell.folder(self.path)):
                _check_same(record.made_with, expected, cell.folder(self.path))
                state.records[cell] = record
        for method in state.methods:
            for cell in state.sweep_cells(method):
                failure = cell.folder(self.path) / FAILURE
                if state.tested_cells(method) and cell not in state.records and failure.is_file():
                    state.failed[cell] = read_json(failure)["error"]

    def collect(self, cell: Cell, error: str | None, state: SweepState) -> None:
        """Add the result of a cell that just ended to `state`, and write a failure to the cell's folder."""
        folder = cell.folder(self.path)
        record = Record.read(folder)
        if record is not None:
            state.records[cell] = record
        elif error is None:
            error = "it left no record"
        if error is None:
            (folder / FAILURE).unlink(missing_ok=True)
        else:
            state.failed[cell] = error
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(folder / FAILURE, json.dumps({"error": error}) + "\n")

    def drop_weights(self, state: SweepState, keep_full: bool) -> None:
        """Remove the weights of beaten cells and, unless `keep_full`, of fully fine-tuned models that are scored."""
        for method in state.methods:
            scored = [] if keep_full or method.settings.get("method") != "full" else state.tested_cells(method)
            for cell in [*state.beaten_cells(method), *scored]:
                shutil.rmtree(self.weights(cell), ignore_errors=True)


def made_with(settings: TrainSettings, **more: Any) -> dict[str, Any]:
    """Return the settings that decide the result of a cell as JSON values: no local paths, but all of `more`."""
    values = {name: value for name, value in asdict(settings).items() if name not in ("data", "out", "eval_data")}
    return json.loads(json.dumps({**values, **more}))


def _check_same(stored: Mapping[str, Any], expected: Mapping[str, Any], folder: Path) -> None:
    defaults = made_with(TrainSettings())
    for name, value in expected.items():
        before = stored.get(name, defaults.get(name))
        if before != value:
            raise ActshiftError(
                f"{folder} was made with {name} {before!r}, not {value!r}. Compare with the same settings, or give "
                "another --out."
            )
