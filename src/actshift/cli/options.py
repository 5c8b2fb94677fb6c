"""Turn the fields of a settings class into command-line flags, so that there is one list of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import Field, fields
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer

from actshift.errors import ActshiftError

if TYPE_CHECKING:
    from datasets import Dataset

    from actshift.model_head import Head


def flags_of(settings: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that replaces a verb's `**flags` by one option for each field of the class `settings`.

    A flag that is not given is None, so that a config file or the class decides. The field's metadata say what
    `help` tells and in which `panel`.
    """
    hints = get_type_hints(settings)

    def decorate(verb: Callable[..., Any]) -> Callable[..., Any]:
        own = [
            parameter
            for parameter in inspect.signature(verb, eval_str=True).parameters.values()
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        options = [_option(item, hints[item.name]) for item in fields(settings)]
        verb.__signature__ = inspect.Signature([*options, *own])  # type: ignore[attr-defined]
        verb.__annotations__ = {parameter.name: parameter.annotation for parameter in [*options, *own]}
        return verb

    return decorate


def _option(item: Field, hint: Any) -> inspect.Parameter:
    value = ", ".join(item.default) if isinstance(item.default, tuple) else item.default
    default = "" if value in (None, False) else f" (default: {value})"
    option = typer.Option(help=item.metadata["help"] + default, rich_help_panel=item.metadata["panel"])
    return inspect.Parameter(
        item.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[_flag_type(hint) | None, option]
    )


def _flag_type(hint: Any) -> Any:
    if get_origin(hint) in (Union, UnionType):
        [hint] = [option for option in get_args(hint) if option is not type(None)]
    if get_origin(hint) is tuple:
        return list[str]
    return hint if hint in (int, float, bool) else str  # choices are checked, with a suggestion, by the class


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
    from actshift.training.data import known_objective, read_rows

    check_source(data, task, data_dir)
    settings = TrainSettings(model=model, task=task, data_dir=data_dir)
    rows = read_rows(settings, split or "train", data, known_objective(settings))
    return rows.select(range(min(limit, len(rows))))


def head_for_rows(model: str, task: str | None, rows: Dataset) -> Head:
    """Return the head that training `model` on the rows would give it: its own, or a new one for an encoder."""
    from actshift.training import TrainSettings
    from actshift.training.data import head_for, known_objective, objective_of_rows

    settings = TrainSettings(model=model, task=task)
    return head_for(settings, known_objective(settings) or objective_of_rows(rows), rows)
