"""What reinforcement learning rewards: by name for tasks with an answer, or a Python function of one's own."""

from __future__ import annotations

import inspect
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any, SupportsFloat, cast

from actshift.errors import ActshiftError, did_you_mean, first_line
from actshift.tasks import Scorer, get_scorer, get_task
from actshift.training.settings import TrainSettings


@dataclass(frozen=True)
class Reward:
    """A function by its name: of `completions`, their `prompts` and the rows' columns, all lists, to a number each.

    The signature is that of TRL's `GRPOTrainer`; None says that a completion is not judged. All are texts.

    Raises ActshiftError, when called, for a function that raises or returns anything else, with the step it was at.

    >>> Reward("short", lambda completions, **columns: [-len(text) for text in completions])(completions=["a", "bcd"])
    [-1.0, -3.0]
    """

    name: str
    function: Callable[..., Sequence[SupportsFloat | None]]

    @property
    def __name__(self) -> str:
        """By which TRL logs it."""
        return self.name

    def __call__(self, *, completions: Sequence[str], **columns: Any) -> list[float | None]:
        """Return the reward of each completion."""
        state = columns.get("trainer_state")
        where = f" at step {state.global_step + 1}; mend it and go on with --resume" if state is not None else ""
        try:
            values = self.function(completions=completions, **columns)
        except Exception as error:  # whatever the user's code raises
            raise ActshiftError(
                f"The reward {self.name} raised {type(error).__name__} ({first_line(error).rstrip('.')}){where}."
            ) from error
        if fault := _fault(values, len(completions)):
            raise ActshiftError(f"The reward {self.name} {fault}{where}.")
        return [None if value is None else float(value) for value in values]


def _fault(values: Any, wanted: int) -> str | None:
    try:
        found = list(values)
    except TypeError:
        return f"returned {type(values).__name__} where a list with a number for each completion belongs"
    if len(found) != wanted:
        return f"returned {len(found)} numbers for {wanted} completions"
    wrong = next((value for value in found if not _is_number(value)), None)
    return None if wrong is None else f"returned {wrong!r:.60} where a finite number belongs"


def _is_number(value: Any) -> bool:
    if value is None:
        return True
    try:
        return not isinstance(value, str) and math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


MARK = "####"
"""What announces the answer in GSM8K, and in what is written like it."""


def right_answer(scorer: Scorer) -> Reward:
    """Return the reward of 1 for a completion that `scorer` finds right, by the row's `answer` and `choices`.

    >>> from actshift.tasks import get_scorer
    >>> right_answer(get_scorer("number"))(completions=["So 42.", "41"], answer=["42", "42"])
    [1.0, 0.0]
    """
    return _reward("right_answer", scorer)


def right_form(scorer: Scorer) -> Reward:
    """Return the reward of 1 for a completion that gives an answer, right or wrong, in the form of its row's own.

    That is: where the row's `reference` gives it behind `####`, behind the last such mark and in one line, with
    nothing below; else anywhere that `scorer` reads one answer. [ours]

    Raises ActshiftError for the scorer exact, to which any text is an answer.

    >>> from actshift.tasks import get_scorer
    >>> reward = right_form(get_scorer("number"))
    >>> reward(completions=["1 + 1 = 2\\n#### 2", "It is 2."], reference=["#### 3", "#### 3"])
    [1.0, 0.0]
    """

    if scorer.name == "exact":
        raise ActshiftError("right_form needs a scorer that reads answers, such as number; exact takes any text.")

    def formed(completion: str, row: Mapping[str, Any]) -> bool:
        if MARK not in str(row.get("reference", "")):
            return scorer.extract(completion, row) is not None
        _, marked, end = completion.rpartition(MARK)
        return bool(marked) and "\n" not in end.strip() and scorer.extract(end, row) is not None

    return _reward("right_form", formed)


def _reward(name: str, judge: Callable[[str, Mapping[str, Any]], bool]) -> Reward:
    def rewards(completions: Sequence[str], **columns: Any) -> list[float]:
        rows = _rows(columns, len(completions))
        return [float(judge(completion, row)) for completion, row in zip(completions, rows, strict=True)]

    return Reward(name, rewards)


def _rows(columns: Mapping[str, Any], count: int) -> Iterator[dict[str, Any]]:
    lists = {name: values for name, values in columns.items() if isinstance(values, list)}
    return ({name: values[index] for name, values in lists.items()} for index in range(count))


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


REWARDS: dict[str, Callable[[Scorer], Reward]] = {"right_answer": right_answer, "right_form": right_form}
"""Every reward by its name, of the scorer that judges."""


def get_rewards(names: Sequence[str], scorer: Scorer) -> list[Reward]:
    """Return the rewards of these names: those of `REWARDS`, judged by `scorer`, and functions as module:function.

    Raises ActshiftError for an unknown name, with the nearest one, and for what `own_reward` refuses.

    >>> from actshift.tasks import get_scorer
    >>> [reward.name for reward in get_rewards(["right_answer", "right_form"], get_scorer("number"))]
    ['right_answer', 'right_form']
    """
    return [own_reward(name) if ":" in name else _named(name)(scorer) for name in names]


def _named(name: str) -> Callable[[Scorer], Reward]:
    if name not in REWARDS:
        raise ActshiftError(
            f"There is no reward {name!r}{did_you_mean(name, REWARDS)}; give {' or '.join(REWARDS)}, or a Python "
            "function of your own as module:function."
        )
    return REWARDS[name]


def scorer_of(settings: TrainSettings) -> Scorer:
    """Return who judges: as given, or as the task says; exact match where neither does.

    >>> scorer_of(TrainSettings(task="gsm8k")).name
    'number'
    """
    if settings.task and settings.scorer is None:
        return get_task(settings.task).scorer
    return get_scorer(settings.scorer or "exact")


def rewards_of(settings: TrainSettings) -> list[Reward]:
    """Return the rewards of a run; raise ActshiftError where there is none, or what `get_rewards` raises."""
    if not settings.reward:
        raise ActshiftError(
            "grpo needs a reward; give --reward right_answer, right_form or module:function, or several of them."
        )
    return get_rewards(settings.reward, scorer_of(settings))


def try_rewards(rewards: Sequence[Reward], examples: Sequence[Mapping[str, Any]]) -> None:
    """Call each reward on some rows as TRL will, so that one that fails does so before hours are spent.

    The completions are the rows' own, or empty where they have none. Raises what a `Reward` raises.
    """
    names = dict.fromkeys(name for example in examples for name in example if name != "prompt")
    for reward in rewards:
        reward(
            prompts=[example["prompt"] for example in examples],
            completions=[example.get("reference", "") for example in examples],
            completion_ids=[[] for _ in examples],
            log_extra=lambda *_: None,
            log_metric=lambda *_: None,
            **{name: [example.get(name) for example in examples] for name in names},
        )
