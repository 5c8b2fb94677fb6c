"""Options that several verbs share, and flags generated from the fields of a settings class."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import Field, fields
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from typer import Option

LARGEST = 2**32 - 1  # of whole numbers; C code of libraries takes no larger ones

Model = Annotated[
    str | None, Option(help="Model: a folder, a GGUF file or a Hugging Face id. Default: the adapter's base.")
]
Revision = Annotated[str | None, Option(help="Branch, tag or commit of the base on the hub. Default: the adapter's.")]
Adapter = Annotated[str | None, Option(help="Adapter: a folder or a Hugging Face id.")]
Strength = Annotated[
    float | None,
    Option(help="Factor on the adapter's shift: 1 as trained, 0 for the base model. Default: as saved, mostly 1."),
]
Half = Annotated[str, Option(help="Part of a joint adapter to use: both, weights (its LoRA) or activations.")]
TrustRemoteCode = Annotated[bool, Option("--trust-remote-code", help="Run the Python code that comes with the model.")]

Data = Annotated[str | None, Option(help="Rows: a .jsonl, .json, .csv, .tsv or .parquet file, or a dataset id.")]
Columns = Annotated[
    list[str] | None, Option("--map", help="Column to read under another name: prompt=question (repeatable).")
]
Task = Annotated[str | None, Option(help="Task: a name that 'actshift tasks' lists, or your own .yaml file.")]
DataDir = Annotated[str | None, Option(help="Folder with the task's files. Default: download from the hub.")]
Split = Annotated[str | None, Option(help="Split of a task or a hub dataset. Default: train.")]
Limit = Annotated[int, Option(min=1, max=LARGEST, help="Use only this many rows, from the first.")]
BatchSize = Annotated[int, Option(min=1, max=LARGEST, help="Rows per batch.")]
MaxLength = Annotated[int, Option(min=2, max=LARGEST, help="Maximum tokens per row.")]

LongPrompts = Annotated[
    Literal["refuse", "truncate"], Option(help="Prompts beyond the context: stop with an error, or keep only the ends.")
]
Chat = Annotated[
    bool | None, Option("--chat/--no-chat", help="Render the chat template. Default: as in training, if recorded.")
]
System = Annotated[str | None, Option(help="System prompt: the first turn of every chat.")]
Temperature = Annotated[float, Option(min=0, help="Sampling temperature; 0 decodes greedily.")]

Figure = Annotated[Path | None, Option(help="Save the figure to this .png or .svg file.")]
AdapterFolder = Annotated[Path, Option("--out", help="New folder for the adapter.")]
AsJson = Annotated[bool, Option("--json", help="Print JSON instead of tables.")]
Resume = Annotated[bool, Option("--resume", help="Continue the unfinished run in --out.")]


def flags_of(settings: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that replaces a verb's `**flags` with one option per field of the dataclass `settings`.

    A flag that the user omits is None; a config file or the class then supplies the value. The metadata of each field
    contain its `help` text and its `panel`.
    """
    hints = get_type_hints(settings)

    def decorate(verb: Callable[..., Any]) -> Callable[..., Any]:
        *own, _flags = inspect.signature(verb, eval_str=True).parameters.values()
        parameters = [*(_option(field, hints[field.name]) for field in fields(settings)), *own]
        verb.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        verb.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return verb

    return decorate


def _option(field: Field[Any], hint: Any) -> inspect.Parameter:
    value = ", ".join(field.default) if isinstance(field.default, tuple) else field.default
    default = "" if value in (None, False) else f" (default: {value})"
    option = Option(help=field.metadata["help"] + default, rich_help_panel=field.metadata["panel"])
    annotation = Annotated[_flag_type(hint) | None, option]
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _flag_type(hint: Any) -> Any:
    if get_origin(hint) in (Union, UnionType):
        hint = [option for option in get_args(hint) if option is not type(None)][-1]  # the list of "one or several"
    if get_origin(hint) is tuple:
        return list[str]
    return hint if hint in (int, float, bool) else str  # the settings class checks choices and suggests the nearest
