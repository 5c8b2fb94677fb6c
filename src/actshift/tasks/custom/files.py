"""Rows in files of one's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from actshift.tasks.example import Row
from actshift.tasks.parts import Part


@dataclass(frozen=True)
class Files:
    """A .jsonl, .json, .csv or .parquet file for each split of the source, as `load_rows` reads them."""

    paths: Mapping[str, Path]
    parts: Mapping[str, Part]

    @property
    def rows(self) -> Mapping[str, int]:
        """Nothing: they are counted."""
        return {}

    def read(self, task: str, split: str) -> Iterable[Row]:
        """Return the rows of the file; raise ActshiftError where it cannot be read."""
        from actshift.data.readers import read_file

        return read_file(self.paths[split])

    def where(self, task: str, split: str) -> str:
        """Name the file."""
        return str(self.paths[split])

    @property
    def named(self) -> str:
        """The files."""
        return ", ".join(map(str, self.paths.values()))
