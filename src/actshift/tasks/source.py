"""Sources of a task's rows: a dataset on the hub, a folder of published files, or the files of a custom task."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from actshift.data.rows import Row, read_file
from actshift.errors import ActshiftError, first_line, require

SPLITS = ("train", "validation", "test")
SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}  # of the splits that are cut from one split of the source
SEED = 0


@dataclass(frozen=True)
class SplitSlice:
    """The rows of a source's split whose prompt hashes to a position in [low, high).

    The position of a prompt is a hash of its text and of `SEED`, between 0 and 1. It is the same on every machine and
    for every order of the rows, and all rows with one prompt fall into the same slice. A slice therefore has its
    share of the rows on average, not exactly.

    >>> [SplitSlice("train", 0, 0.5).contains(prompt) for prompt in ("2 + 2 =", "2 + 3 =", "2 + 2 =")]
    [False, True, False]
    """

    split: str
    low: float = 0.0
    high: float = 1.0

    @property
    def share(self) -> float:
        """The share of the source's split, 1 for all of it."""
        return self.high - self.low

    def contains(self, prompt: str) -> bool:
        """Return whether the row with this prompt is in the slice."""
        digest = sha256(f"{SEED} {prompt}".encode()).digest()
        return self.low <= int.from_bytes(digest[:4], "big") / 2**32 < self.high  # 32 bits are exact in a float


def whole_splits(**renamed: str) -> dict[str, SplitSlice]:
    """Return the whole splits of a source that has all of `SPLITS`, some under other names.

    >>> whole_splits(validation="dev")["validation"]
    SplitSlice(split='dev', low=0.0, high=1.0)
    """
    return {split: SplitSlice(renamed.get(split, split)) for split in SPLITS}


def split_by_hash(split: str, **shares: float) -> dict[str, SplitSlice]:
    """Cut one split of a source into several splits of a task, by `shares` or else by `SHARES`.

    >>> split_by_hash("dev", validation=0.5, test=0.5)["test"]
    SplitSlice(split='dev', low=0.5, high=1.0)
    """
    slices: dict[str, SplitSlice] = {}
    low = 0.0
    for name, share in (shares or SHARES).items():
        high = round(low + share, 9)  # the sum of decimals such as 0.8 + 0.1 + 0.1 must be exactly 1
        slices[name] = SplitSlice(split, low, high)
        low = high
    return slices


def halves(held_out: str, train: str = "train") -> dict[str, SplitSlice]:
    """Return a whole split for training, and two halves of another split for validation and testing."""
    return {"train": SplitSlice(train), **split_by_hash(held_out, validation=0.5, test=0.5)}


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """Rows in the source's own splits. `str(source)` describes the source in a few words.

    Attributes:
        slices: the slice of the source for each split of the task, by default all of the split of the same name.
        sizes: the number of rows in each split of the source, if it is known without reading the rows.
    """

    slices: Mapping[str, SplitSlice] = field(default_factory=whole_splits)
    sizes: Mapping[str, int] = field(default_factory=dict[str, int])

    @abstractmethod
    def read(self, task: str, split: str) -> Iterable[Row]:
        """Return the rows of the source's `split` in the layout that `Task.example` reads, or raise ActshiftError."""

    def place(self, task: str, split: str) -> str:
        """Return the place of the source's `split`, for messages."""
        return f"{self}, split {split}"


@dataclass(frozen=True)
class Hub(Source):
    """A dataset on the Hugging Face hub, pinned to a commit."""

    id: str
    revision: str
    config: str | None = None

    def read(self, task: str, split: str) -> Iterable[Row]:
        """Return the rows of a split, which is downloaded once."""
        datasets = require("datasets", "train")
        try:
            return datasets.load_dataset(self.id, self.config, split=split, revision=self.revision)
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            raise ActshiftError(
                f"The task {task} could not be loaded from {self.place(task, split)} on the hub "
                f"({first_line(error).rstrip('.')}); with --data-dir DIR it is read from DIR/{task}."
            ) from error

    def __str__(self) -> str:
        return f"{self.id} ({self.config}) at {self.revision}" if self.config else f"{self.id} at {self.revision}"


@dataclass(frozen=True)
class Folder(Source):
    """Files `<split>.jsonl.gz` or `<split>.jsonl` with rows ``{"prompt_fields": {...}, "answer": ...}``.

    Attributes:
        layout: a function from a row's prompt fields and answer to the layout of the hub, or to None to skip the row.
        folder: the folder with the files. `Task.source_in` sets it.
    """

    layout: Callable[[dict[str, Any]], Row | None] = dict
    folder: Path = Path()

    def read(self, task: str, split: str) -> Iterator[Row]:
        """Yield the rows of a file in the layout of the hub."""
        path = Path(self.place(task, split))
        for number, row in enumerate(read_file(path), start=1):
            if "prompt_fields" not in row or "answer" not in row:
                raise ActshiftError(
                    f"Row {number} of {path} has the columns {', '.join(row)}; it needs prompt_fields and answer."
                )
            if (hub_row := self.layout({**row["prompt_fields"], "answer": row["answer"]})) is not None:
                yield hub_row

    def place(self, task: str, split: str) -> str:
        """Return the path of the file (a compressed one takes precedence). Raise ActshiftError if there is none."""
        for path in (self.folder / f"{split}.jsonl.gz", self.folder / f"{split}.jsonl"):
            if path.is_file():
                return str(path)
        names = ", ".join(sorted(path.name for path in self.folder.glob("*"))) or "no files"
        folder = f"which has {names}" if self.folder.is_dir() else "and there is no such folder"
        raise ActshiftError(f"The task {task} reads {split}.jsonl.gz (or .jsonl) in {self.folder}, {folder}.")

    def __str__(self) -> str:
        return str(self.folder)


@dataclass(frozen=True)
class Files(Source):
    """One .jsonl, .json, .csv or .parquet file for each split of the source."""

    paths: Mapping[str, Path]

    def read(self, task: str, split: str) -> Iterable[Row]:
        """Return the rows of the file."""
        return read_file(self.paths[split])

    def place(self, task: str, split: str) -> str:
        """Return the path of the file."""
        return str(self.paths[split])

    def __str__(self) -> str:
        return ", ".join(map(str, self.paths.values()))
