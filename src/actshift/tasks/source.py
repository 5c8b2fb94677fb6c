"""Where the rows of a task come from: a dataset on the hub, or files in a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

from actshift.errors import ActshiftError, first_line, require

SPLITS = ("train", "validation", "test")
SEED = 0


@dataclass(frozen=True)
class SplitSlice:
    """The rows of a source's `split` whose prompt falls between `low` and `high`, shares of 1.

    Where a prompt falls is a hash of its text and of `SEED`: the same on every machine, whatever the order of the
    rows, so that rows with one prompt stay on one side of every cut. A share is met on average, not to the row.

    >>> [SplitSlice("train", 0, 0.5).takes(prompt) for prompt in ("2 + 2 =", "2 + 3 =", "2 + 2 =")]
    [False, True, False]
    """

    split: str
    low: float = 0.0
    high: float = 1.0

    @property
    def share(self) -> float:
        """The share of the source's split, 1 for all of it."""
        return self.high - self.low

    def takes(self, prompt: str) -> bool:
        """Tell whether the row with this prompt belongs here."""
        return self.share == 1 or self.low <= _place(prompt) < self.high


def split_by_hash(split: str, **shares: float) -> dict[str, SplitSlice]:
    """Cut one split of a source into several of a task, by their shares.

    >>> split_by_hash("dev", validation=0.5, test=0.5)["test"]
    SplitSlice(split='dev', low=0.5, high=1.0)
    """
    parts, low = {}, 0.0
    for name, share in shares.items():
        high = round(low + share, 9)  # sums of decimals such as 0.8 + 0.1 + 0.1 must meet 1
        parts[name] = SplitSlice(split, low, high)
        low = high
    return parts


def _place(prompt: str) -> float:
    return int.from_bytes(sha256(f"{SEED} {prompt}".encode()).digest()[:4], "big") / 2**32  # exact in a float


Row = Mapping[str, Any]


@dataclass(frozen=True)
class Example:
    """A prompt, the completion that is learnt (it begins with what separates the two), and the gold `answer`.

    `choices` are the texts to choose from, where there are some. `text` and `text_pair` are what a classifier reads;
    its label is the answer.
    """

    prompt: str
    completion: str
    answer: str
    choices: tuple[str, ...] = ()
    text: str | None = None
    text_pair: str | None = None


def text_row(example: Example) -> dict[str, Any]:
    """Return the columns prompt, completion, answer, and choices where there are some."""
    return {"prompt": example.prompt, "completion": example.completion, **_gold(example)}


def messages_row(example: Example) -> dict[str, Any]:
    """Return the columns messages (the prompt as a user's turn, the completion as the answer), answer and choices.

    >>> messages_row(Example("2 + 2 =", " 4", "4"))["messages"][1]
    {'role': 'assistant', 'content': '4'}
    """
    turns = [("user", example.prompt), ("assistant", example.completion.strip())]
    return {"messages": [{"role": role, "content": content} for role, content in turns], **_gold(example)}


def labels_row(example: Example) -> dict[str, Any]:
    """Return the columns text, text_pair where there are two texts, and label."""
    pair = {} if example.text_pair is None else {"text_pair": example.text_pair}
    return {"text": example.text, **pair, "label": example.answer}


def _gold(example: Example) -> dict[str, Any]:
    return {"answer": example.answer, **({"choices": list(example.choices)} if example.choices else {})}


FORMS: dict[str, Callable[[Example], dict[str, Any]]] = {
    "text": text_row,
    "messages": messages_row,
    "labels": labels_row,
}
"""The forms by name."""


ENDINGS = (".jsonl.gz", ".jsonl")


class Source(Protocol):
    """Rows by the source's own splits, and which of them make up each split of the task."""

    @property
    def parts(self) -> Mapping[str, SplitSlice]:
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
    parts: Mapping[str, SplitSlice]
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

    parts: Mapping[str, SplitSlice]
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
