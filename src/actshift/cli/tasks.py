"""`actshift tasks`: the tasks by name, one of them with an example, or all of them as a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from actshift.cli.steered import AsJson
from actshift.errors import ActshiftError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from actshift.tasks.catalogue import Entry


def tasks(
    name: Annotated[str | None, typer.Argument(help="Show this task: its name, or a .yaml file of your own.")] = None,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", help="Count the rows of the files in this folder, and show one.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write a page of all tasks to this Markdown file.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the tasks, with the sizes of their splits, their scorers and settings; or show one, with an example."""
    import json

    from rich.console import Console

    from actshift.files import check_writable, write_whole
    from actshift.tasks import get_task, task_names
    from actshift.tasks.catalogue import entry_of, page

    if name is not None and out is not None:
        raise ActshiftError("--out writes the page of all tasks; leave the name of one out.")
    if data_dir is not None and not data_dir.is_dir():
        raise ActshiftError(f"There is no folder {data_dir} to read tasks from.")
    if out is not None:
        check_writable(out)
    console = Console(highlight=False)
    with Console(stderr=True).status("Counting rows …"):
        if name is not None:
            entries = [entry_of(get_task(name), data_dir)]
        else:
            entries = [entry_of(get_task(each), _holding(each, data_dir)) for each in task_names()]
    if out is not None:
        write_whole(out, page(entries))
    if as_json:
        shown = [entry.to_dict() for entry in entries]
        typer.echo(json.dumps(shown if name is None else shown[0], ensure_ascii=False))
    elif name is None:
        console.print(_table(entries))
    else:
        for line in _lines(entries[0]):
            console.print(line, markup=False, soft_wrap=True)


def _holding(name: str, data_dir: Path | None) -> Path | None:
    """Return the folder if it has this task; of all tasks, some may be elsewhere."""
    return data_dir if data_dir is not None and (data_dir / name).is_dir() else None


def _table(entries: Sequence[Entry]) -> Table:
    from rich.table import Column, Table

    from actshift.tasks.source import SPLITS

    numbers = [Column(name, justify="right", no_wrap=True) for name in (*SPLITS, "epochs", "length")]
    table = Table(
        Column("task", no_wrap=True),
        "what",
        *numbers[:3],
        Column("scorer", no_wrap=True),
        *numbers[3:],
        box=None,
        pad_edge=False,
    )
    for entry in entries:
        settings = (str(entry.settings.get(name, "–")) for name in ("epochs", "max_length"))
        table.add_row(entry.name, entry.title, *(entry.size_text(split) for split in SPLITS), entry.scorer, *settings)
    return table


def _lines(entry: Entry) -> list[str]:
    settings = ", ".join(f"{name} {value}" for name, value in entry.settings.items()) or "the defaults"
    facts = {
        "task": f"{entry.name}: {entry.title}",
        "rows from": entry.source,
        "rows": entry.rows,
        "scorer": entry.scorer,
        "labels": ", ".join(entry.labels or ()),
        "settings": settings,
        "to score": f"at most {entry.max_new_tokens} new tokens",
        "example": "a training row" if entry.counted else "made up, in the hub's layout",
    }
    return [
        *(f"{name:<11}{fact}" for name, fact in facts.items() if fact),
        *("", "prompt:", entry.example.prompt, "", "completion:", entry.example.completion.strip("\n")),
    ]
