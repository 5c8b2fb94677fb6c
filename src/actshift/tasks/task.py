"""Tasks: rows as prompts with completions and gold answers, a scorer, and training settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from actshift.data.rows import Row
from actshift.errors import ActshiftError, check_choice, require
from actshift.tasks.scorers import Scorer
from actshift.tasks.source import SPLITS, Folder, Source

if TYPE_CHECKING:
    from datasets import Dataset

Form = Literal["text", "messages", "labels"]  # the columns of a loaded row (see `Example.columns`)


@dataclass(frozen=True)
class Example:
    """A prompt with its completion and gold answer.

    The completion starts with the space or newline that separates it from the prompt. `answer` has the canonical form
    of the task's scorer, and `choices` are the texts to choose from. A classifier reads `text` (and `text_pair`) and
    learns `answer` as the label.
    """

    prompt: str
    completion: str
    answer: str
    choices: tuple[str, ...] = ()
    text: str | None = None
    text_pair: str | None = None

    def columns(self, form: Form = "text") -> dict[str, Any]:
        """Return the example as a row in a form of `Task.load`.

        >>> Example("2 + 2 =", " 4", "4").columns("messages")["messages"][1]
        {'role': 'assistant', 'content': '4'}
        """
        if form == "labels":
            pair = {} if self.text_pair is None else {"text_pair": self.text_pair}
            return {"text": self.text, **pair, "label": self.answer}
        gold = {"answer": self.answer, **({"choices": list(self.choices)} if self.choices else {})}
        if form == "text":
            return {"prompt": self.prompt, "completion": self.completion, **gold}
        turns = [("user", self.prompt), ("assistant", self.completion.strip())]
        return {"messages": [{"role": role, "content": content} for role, content in turns], **gold}


@dataclass(frozen=True)
class Task:
    """A benchmark in the protocol of the paper (arXiv 2603.00425), or a custom task.

    Attributes:
        example: a function from a row of the source to an example, or to None to skip the row.
        description: text for the page of all tasks: the citation, and the choice of splits.
        sample: a made-up row in the layout of the source, or None for a custom task.
        local: the same task in a folder of files, or None.
        settings: defaults for training, by the names of `TrainSettings`.
        max_new_tokens: the default length limit of a completion in tokens.
        labels: the names of the classes if a classifier can learn the task, or None.

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
    description: str | None = None
    sample: Row | None = None
    local: Folder | None = None
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    max_new_tokens: int = 16
    labels: tuple[str, ...] | None = None

    def load(
        self, split: str, data_dir: str | Path | None = None, limit: int | None = None, form: Form = "text"
    ) -> Dataset:
        """Return the first `limit` rows (or all) of a split as a dataset.

        Args:
            data_dir: the folder whose subfolder with the task's name has the files, or None to load from the hub.
            form: the columns of the rows. "text" has prompt, completion and answer, and choices if there are any.
                "messages" has messages in place of the first two. "labels" has text and label, and text_pair if
                there is a second text.

        Raises:
            ActshiftError: the task lacks the split or form, the hub or a file cannot be read, or a row does not fit.

        >>> from actshift.tasks import get_task
        >>> get_task("listops").load("test", limit=1).column_names
        ['prompt', 'completion', 'answer']
        """
        check_choice("split", split, SPLITS)
        check_choice("form", form, get_args(Form))
        if form == "labels" and self.labels is None:
            raise ActshiftError(f"The task {self.name} has no labels to classify by; use the form text or messages.")
        datasets = require("datasets", "train")
        rows = [example.columns(form) for example in islice(self.examples(split, data_dir), limit)]
        if not rows:
            raise ActshiftError(f"The task {self.name} has no rows in its split {split}.")
        return datasets.Dataset.from_list(rows)

    def examples(self, split: str, data_dir: str | Path | None = None) -> Iterator[Example]:
        """Yield the examples of a split one by one. Errors are as in `load`."""
        source = self.source_in(data_dir)
        if split not in source.slices:
            raise ActshiftError(f"The task {self.name} has no split {split}; it has {', '.join(source.slices)}.")
        part = source.slices[split]
        for number, row in enumerate(source.read(self.name, part.split), start=1):
            try:
                example = self.example(row)
                if example is not None and self.labels and example.answer not in self.labels:
                    raise ActshiftError(f"has the label {example.answer!r}; use one of {', '.join(self.labels)}")
            except (KeyError, ActshiftError) as error:
                problem = f"has no {error.args[0]}" if isinstance(error, KeyError) else str(error)
                raise ActshiftError(f"Row {number} of {source.place(self.name, part.split)} {problem}.") from error
            if example is not None and part.contains(example.prompt):
                yield example

    def source_in(self, data_dir: str | Path | None) -> Source:
        """Return the source, or the files of `data_dir` if given; raise ActshiftError if it is a custom task then."""
        if data_dir is None:
            return self.source
        if self.local is None:
            raise ActshiftError(f"The task {self.name} names its own rows; leave out --data-dir.")
        return replace(self.local, folder=Path(data_dir, self.name))
