"""Where the rows of a task come from: a dataset on the hub, or files in a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from actshift.errors import ActshiftError, first_line
from actshift.extras import require
from actshift.tasks.example import Row
from actshift.tasks.parts import Part

ENDINGS = (".jsonl.gz", ".jsonl")


class Source(Protocol):
    """Rows by the source's own splits, and which of them make up each split of the task."""

    @property
    def parts(self) -> Mapping[str, Part]:
        """What each split of the task is made of."""
        ...

    @property
    def rows(self) -> Mapping[str, int]:
        """How many rows each of the source's splits has, where that is known beforehand."""
        ...

    def read(self, task: str, split: str) -> Iterable[Row]:
        """Return the rows of the source's `split`, in the layout that the task's `example` reads."""
        ...

    def where(self, task: str, split: str) -> str:
        """Name the source's `split` in a message."""
        ...

    @property
    def named(self) -> str:
        """What it is and where, in a few words."""
        ...


@dataclass(frozen=True)
class Hub:
    """A dataset on the Hugging Face hub, pinned to a commit; `rows` are its known numbers of rows by split."""

    id: str
    config: str | None
    revision: str
    parts: Mapping[str, Part]
    rows: Mapping[str, int] = field(default_factory=dict)

    def read(self, task: str, split: str) -> Iterable[Row]:
        """Return the rows of `split`, downloaded once.

        Raises ActshiftError, in one line, where the hub cannot be reached or has no such split at this commit.
        """
        datasets = require("datasets", "train")
        try:
            return datasets.load_dataset(self.id, self.config, split=split, revision=self.revision)
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            raise ActshiftError(
                f"The task {task} is at {self.where(task, split)} on the hub, which gave nothing "
                f"({first_line(error).rstrip('.')}); with --data-dir DIR it is read from DIR/{task}."
            ) from error

    def where(self, task: str, split: str) -> str:
        """Name the split, as in `openai/gsm8k (main), split test`."""
        return f"{self._dataset}, split {split}"

    @property
    def named(self) -> str:
        """The dataset and the commit."""
        return f"{self._dataset} at {self.revision}"

    @property
    def _dataset(self) -> str:
        return f"{self.id} ({self.config})" if self.config else self.id


@dataclass(frozen=True)
class Folder:
    """Files `<split>.jsonl.gz` or `.jsonl` of rows ``{"prompt_fields": {...}, "answer": ...}``.

    `layout` turns a row's prompt fields and its `answer` into the layout of the hub; None leaves a row out.
    """

    parts: Mapping[str, Part]
    layout: Callable[[dict[str, Any]], Row | None] = dict
    folder: Path | None = None

    @property
    def rows(self) -> Mapping[str, int]:
        """Nothing: they are counted."""
        return {}

    def read(self, task: str, split: str) -> Iterator[Row]:
        """Yield the rows of the file; raise ActshiftError where there is none, or a row is not of this form."""
        from actshift.data.readers import read_file

        path = self._file(task, split)
        for number, row in enumerate(read_file(path), start=1):
            if "prompt_fields" not in row or "answer" not in row:
                raise ActshiftError(f"Row {number} of {path} has the columns {', '.join(row)}; "
                                    "it needs prompt_fields and answer.")  # fmt: skip
            laid_out = self.layout({**row["prompt_fields"], "answer": row["answer"]})
            if laid_out is not None:
                yield laid_out

    def where(self, task: str, split: str) -> str:
        """Name the file."""
        return str(self._file(task, split))

    @property
    def named(self) -> str:
        """The folder."""
        return str(self.folder)

    def _file(self, task: str, split: str) -> Path:
        assert self.folder is not None
        for ending in ENDINGS:
            if (path := self.folder / f"{split}{ending}").is_file():
                return path
        found = ", ".join(sorted(path.name for path in self.folder.glob("*"))) or "nothing"
        raise ActshiftError(
            f"The task {task} reads {split}{ENDINGS[0]} (or {ENDINGS[1]}) in {self.folder}, "
            + (f"which has {found}." if self.folder.is_dir() else "and there is no such folder.")
        )
