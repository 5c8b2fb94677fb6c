"""A task: rows with a prompt, a completion and a gold answer, the scorer that judges, and the settings to train by."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from actshift.errors import ActshiftError, did_you_mean, require
from actshift.tasks.scorers import Scorer
from actshift.tasks.source import FORMS, SPLITS, Example, Folder, Row, Source

if TYPE_CHECKING:
    from datasets import Dataset

Form = Literal["text", "messages", "labels"]
MAX_NEW_TOKENS = 64
"""How long a completion may be, in tokens, where neither a user nor a task says."""


@dataclass(frozen=True)
class Task:
    """A benchmark, or a task of one's own, by the protocol of the paper (arXiv 2603.00425).

    `example` renders one row of the `source` (None leaves it out), and `sample` is a made-up row in that layout.
    `local` reads the same task from a folder of files. `settings` are defaults for training, by the names of
    `TrainSettings`, and `max_new_tokens` one for scoring. `labels` are the classes, where a classifier can learn it.

    >>> from actshift.tasks import get_task
    >>> task = get_task("gsm8k")
    >>> task.scorer.name, task.settings
    ('number', {'epochs': 3, 'max_length': 256})
    """

    name: str
    title: str
    source: Source
    example: Callable[[Row], Example | None]
    scorer: Scorer
    sample: Row | None = None
    local: Folder | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    max_new_tokens: int = 16
    labels: tuple[str, ...] | None = None

    def load(
        self, split: str, data_dir: str | Path | None = None, limit: int | None = None, form: Form = "text"
    ) -> Dataset:
        """Return the rows of `split`: train, validation or test; of its first `limit` rows if that is given.

        They come from the hub, or from the files in `data_dir`/<name>. The forms: "text" has the columns prompt,
        completion and answer, and choices where there are some; "messages" has messages in place of the first two;
        "labels" has text, label, and text_pair where there are two texts.

        Raises:
            ActshiftError: an unknown split or form, a form that the task lacks, a hub that cannot be reached, a
                folder without the file, or a row that the task cannot read; the message names it, counted from 1.

        Example:
            >>> from actshift.tasks import get_task
            >>> get_task("listops").load("test", limit=1).column_names
            ['prompt', 'completion', 'answer']
        """
        _check("split", split, SPLITS)
        _check("form", form, tuple(FORMS))
        if form == "labels" and self.labels is None:
            raise ActshiftError(f"The task {self.name} has no labels to classify by; use the form text or messages.")
        datasets = require("datasets", "train")
        rows = [FORMS[form](example) for example in islice(self.examples(split, data_dir), limit)]
        if not rows:
            raise ActshiftError(f"The task {self.name} has no rows in its split {split}.")
        return datasets.Dataset.from_list(rows)

    def examples(self, split: str, data_dir: str | Path | None = None) -> Iterator[Example]:
        """Yield the examples of `split`, one by one; raise what `load` raises."""
        source = self.source_in(data_dir)
        if split not in source.parts:
            raise ActshiftError(f"The task {self.name} has no split {split}; it has {', '.join(source.parts)}.")
        part = source.parts[split]
        for number, row in enumerate(source.read(self.name, part.split), start=1):
            try:
                example = self._checked(self.example(row))
            except KeyError as error:
                where = source.where(self.name, part.split)
                raise ActshiftError(f"Row {number} of {where} has no {error.args[0]}.") from error
            except ActshiftError as error:
                raise ActshiftError(f"Row {number} of {source.where(self.name, part.split)} {error}.") from error
            if example is not None and part.takes(example.prompt):
                yield example

    def source_in(self, data_dir: str | Path | None) -> Source:
        """Return where the rows come from: the task's source, or its files in `data_dir`."""
        if data_dir is None:
            return self.source
        if self.local is None:
            raise ActshiftError(f"The task {self.name} names its rows itself; leave --data-dir out.")
        return replace(self.local, folder=Path(data_dir, self.name))

    def _checked(self, example: Example | None) -> Example | None:
        if example is not None and self.labels and example.answer not in self.labels:
            raise ActshiftError(f"has the label {example.answer!r}; it must be one of {', '.join(self.labels)}")
        return example


def _check(what: str, given: str, allowed: tuple[str, ...]) -> None:
    if given not in allowed:
        raise ActshiftError(
            f"The {what} must be one of {', '.join(allowed)}, got {given!r}{did_you_mean(given, allowed)}."
        )
