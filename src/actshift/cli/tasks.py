"""`actshift tasks`: all tasks as a table or a Markdown page, or one task with an example."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.table import Column, Table
from typer import Argument, Option

from actshift.cli import options
from actshift.cli.output import PlainConsole, check_outputs, echo, number_columns, print_facts, print_json, print_tables
from actshift.errors import ActshiftError
from actshift.files import write_atomically

if TYPE_CHECKING:
    from actshift.tasks.catalogue import Entry


def tasks(
    name: Annotated[str | None, Argument(help="Task to show: a name, or your own .yaml file.")] = None,
    data_dir: Annotated[Path | None, Option(help="Folder with task files, to count rows and show examples.")] = None,
    out: Annotated[Path | None, Option(help="Write a page about all tasks to this Markdown file.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """List the tasks with their splits, scorers and settings, or show one with an example."""
    from actshift.tasks import get_task, task_names
    from actshift.tasks.catalogue import describe_task, render_page

    if name is not None and out is not None:
        raise ActshiftError("--out writes a page about all tasks. Leave out the task's name.")
    if data_dir is not None and not data_dir.is_dir():
        raise ActshiftError(f"There is no folder {data_dir} to read tasks from.")
    check_outputs(out)
    with PlainConsole(stderr=True).status("Counting rows …"):
        if name is not None:
            entries = [describe_task(get_task(name), data_dir)]
        else:  # a folder need not have the files of every task
            folders = {task: data_dir if data_dir and (data_dir / task).is_dir() else None for task in task_names()}
            entries = [describe_task(get_task(task), folder) for task, folder in folders.items()]
    if out is not None:
        write_atomically(out, render_page(entries))
    if as_json:
        values = [entry.to_dict() for entry in entries]
        print_json(values if name is None else values[0])
    elif name is None:
        print_tables(_table(entries))
    else:
        _print_task(entries[0])


def _table(entries: Sequence[Entry]) -> Table:
    from actshift.tasks.source import SPLITS

    splits, scorer = number_columns(*SPLITS), Column("scorer", no_wrap=True)
    columns = (Column("task", no_wrap=True), "what", *splits, scorer, *number_columns("epochs", "length"))
    table = Table(*columns, box=None, pad_edge=False)
    for entry in entries:
        settings = (str(entry.settings.get(name, "–")) for name in ("epochs", "max_length"))
        table.add_row(entry.name, entry.title, *(entry.size_text(split) for split in SPLITS), entry.scorer, *settings)
    return table


def _print_task(entry: Entry) -> None:
    facts: dict[str, str | None] = {
        "task": f"{entry.name}: {entry.title}",
        "rows from": entry.source,
        "rows": entry.rows,
        "scorer": entry.scorer,
        "labels": ", ".join(entry.labels or ()),
        "settings": ", ".join(f"{name} {value}" for name, value in entry.settings.items()) or "the defaults",
        "to score": f"at most {entry.max_new_tokens} new tokens",
        "example": "a training row" if entry.counted else "made up, in the hub's layout",
    }
    print_facts(facts)
    echo(f"\nprompt:\n{entry.example.prompt}\n\ncompletion:\n" + entry.example.completion.strip("\n"))
