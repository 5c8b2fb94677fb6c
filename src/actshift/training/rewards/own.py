"""A user's own reward: a Python function, named as module:function."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any, cast

from actshift.errors import ActshiftError, did_you_mean, first_line
from actshift.training.rewards.reward import Reward


def own_reward(name: str) -> Reward:
    """Return the function that `name` names, as `module:function`; the module may lie in the working directory.

    Raises ActshiftError for a module that cannot be imported, a function that it lacks, and one that cannot be
    called with completions, prompts and the rows' columns.

    >>> own_reward("builtins:len")
    Traceback (most recent call last):
        ...
    actshift.errors.ActshiftError: The reward builtins:len cannot be called as TRL calls it; ...
    """
    where, _, what = name.partition(":")
    module = _imported(where)
    function: Any = getattr(module, what, None)
    if not callable(function):
        there = [one for one, value in vars(module).items() if inspect.isfunction(value)]
        found = "is no function" if hasattr(module, what) else f"does not exist{did_you_mean(what, there)}"
        raise ActshiftError(f"The reward {name}: {what or 'a function without a name'} {found} in {where}.")
    if not _takes_columns(function):
        raise ActshiftError(
            f"The reward {name} cannot be called as TRL calls it; define it as {what}(completions, **columns), where "
            "columns holds prompts and the columns of the rows, as lists."
        )
    return Reward(name, cast("Callable[..., Any]", function))


def _imported(name: str) -> ModuleType:
    if os.getcwd() not in sys.path:  # a program of its own, such as ours, does not look there; `python -m` does
        sys.path.insert(0, os.getcwd())
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name and name.startswith(error.name):
            raise ActshiftError(
                f"There is no module {error.name!r} for the reward, neither in {os.getcwd()} nor installed."
            ) from None
        raise ActshiftError(f"The module {name!r} of the reward cannot be imported: {first_line(error)}.") from error
    except Exception as error:  # whatever the user's code raises
        raise ActshiftError(
            f"The module {name!r} of the reward cannot be imported: {type(error).__name__} "
            f"({first_line(error).rstrip('.')})."
        ) from error


def _takes_columns(function: Callable[..., Any]) -> bool:
    try:
        kinds = [parameter.kind for parameter in inspect.signature(function).parameters.values()]
    except ValueError:  # no signature to be had, as of some builtins
        return True
    return inspect.Parameter.VAR_KEYWORD in kinds and not inspect.iscoroutinefunction(function)
