"""Describe tasks as entries of a table, and render all of them as the page docs/tasks.md."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from inspect import cleandoc
from itertools import islice
from pathlib import Path
from typing import Any

from actshift.errors import ActshiftError
from actshift.tasks import get_task
from actshift.tasks.scorers import SCORERS
from actshift.tasks.source import SPLITS
from actshift.tasks.task import Example, Task

PAGE = Path(__file__).with_name("page.md")
"""The page with TABLE and SECTIONS in place of the tasks, and SCORERS in place of the names of all scorers."""
EXAMPLE_POOL = 100  # rows from which the example of median length is chosen


@dataclass(frozen=True)
class Entry:
    """A task in the table.

    `sizes` has the number of rows in each split, or None if it is unknown. The sizes of the splits in `about` are
    approximate. `counted` is whether the rows were counted. If they were not, `example` is a made-up row.
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
        """The sizes in one line, as in `train 9,427, validation ~1,635, test ~1,635`."""
        return ", ".join(f"{split} {self.size_text(split)}" for split in self.sizes)

    def size_text(self, split: str) -> str:
        """Return the size of a split, with `~` if it is approximate."""
        size = self.sizes.get(split)
        return "–" if size is None else f"{'~' if split in self.about else ''}{size:,}"

    def to_dict(self) -> dict[str, Any]:
        """Return the entry as plain values for JSON."""
        return asdict(self)


def describe_task(task: Task, data_dir: str | Path | None = None) -> Entry:
    """Return the entry of a task.

    Count the rows of `data_dir` or of a custom task. Otherwise derive the sizes from the known sizes of the source,
    without reading its rows, and take the example from the made-up row of the task.

    Raises:
        ActshiftError: the rows cannot be read (see `Task.load`).

    >>> from actshift.tasks import get_task
    >>> describe_task(get_task("boolq")).rows
    'train 9,427, validation ~1,635, test ~1,635'
    """
    is_counted = data_dir is not None or task.sample is None
    source = task.source_in(data_dir)
    sizes: dict[str, int | None]
    if is_counted:
        sizes = {split: sum(1 for _ in task.examples(split, data_dir)) for split in source.slices}
        example = _typical_example(task, next(iter(source.slices)), data_dir)
    else:
        known = {split: source.sizes.get(part.split) for split, part in source.slices.items()}
        sizes = {split: size and round(size * source.slices[split].share) for split, size in known.items()}
        example = task.example(task.sample or {})
    assert example is not None, "the made-up row of a task is not skipped"
    about = () if is_counted else tuple(split for split, part in source.slices.items() if part.share != 1)
    training = (task.scorer.name, dict(task.settings), task.max_new_tokens, task.labels)
    return Entry(task.name, task.title, str(source), sizes, about, is_counted, *training, example)


def render_page(entries: Sequence[Entry]) -> str:
    """Return the page of all tasks in Markdown: a table, a section for each task, and a guide to custom tasks."""
    text = PAGE.read_text(encoding="utf-8").replace("SCORERS", ", ".join(SCORERS))
    return text.replace("TABLE", _table(entries)).replace("SECTIONS", "\n".join(map(_section, entries)))


def _typical_example(task: Task, split: str, data_dir: str | Path | None) -> Example:
    pool = list(islice(task.examples(split, data_dir), EXAMPLE_POOL))
    if not pool:
        raise ActshiftError(f"The task {task.name} has no rows in its split {split}.")
    return sorted(pool, key=lambda example: len(example.prompt) + len(example.completion))[len(pool) // 2]


def _table(entries: Sequence[Entry]) -> str:
    lines = ["| task | content | train | validation | test | rows from | scorer | epochs | max length |",
             "|---|---|--:|--:|--:|---|---|--:|--:|"]  # fmt: skip
    for entry in entries:
        sizes = map(entry.size_text, SPLITS)
        origin = "the folder" if entry.counted else "the hub"
        settings = (str(entry.settings[name]) for name in ("epochs", "max_length"))
        cells = (f"[{entry.name}](#{entry.name})", entry.title, *sizes, origin, entry.scorer, *settings)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _section(entry: Entry) -> str:
    task = get_task(entry.name)
    hub = describe_task(task)
    origin = "A training row" if entry.counted else "A made-up row in the hub's layout"
    return (
        f"## {entry.name}\n\n{cleandoc(task.description or '')}\n\n"
        f"Source: {hub.source} ({hub.rows}). A completion has at most {entry.max_new_tokens} new tokens.\n\n"
        f"{origin}, as prompt and completion:\n\n"
        f"```text\n{entry.example.prompt}\n```\n\n```text\n{entry.example.completion}\n```\n"
    )
