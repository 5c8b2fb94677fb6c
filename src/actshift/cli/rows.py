"""The rows that a verb looks at: from a file or dataset, or from a task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from actshift.errors import ActshiftError

if TYPE_CHECKING:
    from datasets import Dataset

    from actshift.head import Head

Data = Annotated[str | None, typer.Option("--data", help="Rows: a file or a dataset's id, as for train.")]
Task = Annotated[str | None, typer.Option("--task", help="A task's name, or your own task's .yaml file.")]
DataDir = Annotated[str | None, typer.Option("--data-dir", help="Read the task from local files here.")]
Split = Annotated[str | None, typer.Option("--split", help="Of a task or a hub dataset: train if left out.")]
Limit = Annotated[int, typer.Option("--limit", min=1, help="Use only the first rows.")]


def check_source(data: str | None, task: str | None, data_dir: str | None) -> None:
    """Raise ActshiftError unless one source of rows is named, and a folder only for a task."""
    if (data is None) == (task is None):
        raise ActshiftError("Give either --data with rows or --task with the name of a task.")
    if data_dir is not None and task is None:
        raise ActshiftError("--data-dir is where --task finds local files; --data names its file by itself.")


def rows_for(
    model: str, data: str | None, task: str | None, data_dir: str | None, split: str | None, limit: int
) -> Dataset:
    """Return the rows that a user named, as training `model` would read them.

    Raises ActshiftError where none or two sources are named, or the rows cannot be read.
    """
    from actshift.training import TrainSettings
    from actshift.training.inputs import known_objective, read_rows

    check_source(data, task, data_dir)
    settings = TrainSettings(model=model, task=task, data_dir=data_dir)
    rows = read_rows(settings, split or "train", data, known_objective(settings))
    return rows.select(range(min(limit, len(rows))))


def head_for_rows(model: str, task: str | None, rows: Dataset) -> Head:
    """Return the head that training `model` on the rows would give it: its own, or a new one for an encoder."""
    from actshift.training import TrainSettings
    from actshift.training.inputs import head_for, known_objective, objective_of_rows

    settings = TrainSettings(model=model, task=task)
    return head_for(settings, known_objective(settings) or objective_of_rows(rows), rows)
