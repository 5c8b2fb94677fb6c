"""What tasks there are, as facts, with an example each, and as a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

from actshift.errors import ActshiftError
from actshift.tasks.registry import get_task
from actshift.tasks.source import SPLITS, Example, Source
from actshift.tasks.task import Task

LOOKED_AT = 100
"""Of how many rows the one of middle length is shown."""


@dataclass(frozen=True)
class Entry:
    """One task of the table; `sizes` are rows by split, None where unknown, and about right in the splits `about`.

    Where the rows were not `counted`, the example is made up.
    """

    name: str
    title: str
    source: str
    sizes: dict[str, int | None]
    about: tuple[str, ...]
    counted: bool
    scorer: str
    settings: dict[str, Any]
    max_new_tokens: int
    labels: tuple[str, ...] | None
    example: Example

    @property
    def rows(self) -> str:
        """The sizes in words: `train 9,427, validation ~1,635, test ~1,635`."""
        return ", ".join(f"{split} {self.size_text(split)}" for split in self.sizes)

    def size_text(self, split: str) -> str:
        """Return how many rows a split has: counted, or about so many."""
        size = self.sizes.get(split)
        return "–" if size is None else f"{'~' if split in self.about else ''}{size:,}"

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        return asdict(self)


def entry_of(task: Task, data_dir: str | Path | None = None) -> Entry:
    """Return what is to be said of `task`, with its rows counted in `data_dir`; raise what `Task.load` raises.

    Without a folder, sizes are those of the hub's splits, of which a cut takes about its share, and the example is
    the task's made-up row; a task of one's own is counted where its rows are.
    """
    counted = data_dir is not None or task.sample is None
    source = task.source_in(data_dir)
    sizes: dict[str, int | None]
    if counted:
        sizes = {split: sum(1 for _ in task.examples(split, data_dir)) for split in source.parts}
        example = _typical(task, next(iter(source.parts)), data_dir)
    else:
        sizes, example = known_sizes(source), task.example(task.sample or {})
    assert example is not None, "a sample is a row that counts"
    return Entry(
        name=task.name,
        title=task.title,
        source=source.named,
        sizes=sizes,
        about=() if counted else tuple(split for split, part in source.parts.items() if part.share != 1),
        counted=counted,
        scorer=task.scorer.name,
        settings=dict(task.settings),
        max_new_tokens=task.max_new_tokens,
        labels=task.labels,
        example=example,
    )


def known_sizes(source: Source) -> dict[str, int | None]:
    """Return about how many rows each split has, by what is known of the source beforehand.

    >>> from actshift.tasks import get_task
    >>> known_sizes(get_task("boolq").source)
    {'train': 9427, 'validation': 1635, 'test': 1635}
    """
    sizes: dict[str, int | None] = {}
    for split, part in source.parts.items():
        rows = source.rows.get(part.split)
        sizes[split] = None if rows is None else round(rows * part.share)
    return sizes


def _typical(task: Task, split: str, data_dir: str | Path | None) -> Example:
    first = list(islice(task.examples(split, data_dir), LOOKED_AT))
    if not first:
        raise ActshiftError(f"The task {task.name} has no rows in its split {split}.")
    return sorted(first, key=lambda example: len(example.prompt) + len(example.completion))[len(first) // 2]


OWN_TASK = Path(__file__).with_name("own_task.md")


def page(entries: Sequence[Entry]) -> str:
    """Return the page in Markdown: a table, each task with an example, and how to add one's own."""
    head = (
        "# Tasks\n\n"
        "Made by `actshift tasks --data-dir DIR --out docs/tasks.md`. Each is one name in `--task`; its rows come from "
        "the Hugging Face hub, at the commit named below, or from the files `DIR/<task>/<split>.jsonl.gz` of "
        "`--data-dir DIR`, whose sizes the table has where they were at hand.\n\n"
        "A size with `~` is a share of a split: which rows it takes follows from a hash of each prompt, so a cut is "
        "the same on every machine and never puts one prompt on two sides.\n"
    )
    sections = "\n".join(_section(entry) for entry in entries)
    return f"{head}\n{_table(entries)}\n\n{sections}\n{OWN_TASK.read_text(encoding='utf-8')}"


def _table(entries: Sequence[Entry]) -> str:
    lines = ["| task | what | train | validation | test | rows from | scorer | epochs | max length |",
             "|---|---|--:|--:|--:|---|---|--:|--:|"]  # fmt: skip
    for entry in entries:
        sizes = " | ".join(entry.size_text(split) for split in SPLITS)
        where = "the hub" if not entry.counted else "the folder"
        settings = f"{entry.settings['epochs']} | {entry.settings['max_length']}"
        lines.append(
            f"| [{entry.name}](#{entry.name}) | {entry.title} | {sizes} | {where} | {entry.scorer} | {settings} |"
        )
    return "\n".join(lines)


def _section(entry: Entry) -> str:
    about = import_module(f"actshift.tasks.benchmarks.{entry.name}").__doc__ or ""
    origin = "A training row" if entry.counted else "A made-up row in the hub's layout"
    there = entry_of(get_task(entry.name))
    return (
        f"## {entry.name}\n\n{about.strip()}\n\n"
        f"Source: {there.source} ({there.rows}). "
        f"At most {entry.max_new_tokens} new tokens are scored.\n\n"
        f"{origin}, prompt and completion:\n\n"
        f"{_fenced(entry.example.prompt)}\n{_fenced(entry.example.completion)}"
    )


def _fenced(text: str) -> str:
    return f"```text\n{text}\n```\n"
