"""Turn the fields of a settings class into command-line flags, so that there is one list of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import Field, fields
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer


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
