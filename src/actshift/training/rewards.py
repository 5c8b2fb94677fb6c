"""Rewards for reinforcement learning: built-in ones by name, and the user's Python functions."""

from __future__ import annotations

import inspect
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from actshift.errors import ActshiftError, did_you_mean, first_line
from actshift.fingerprint import hash_files
from actshift.tasks import Scorer, get_scorer, get_task
from actshift.training.settings import TrainSettings

ANSWER_MARK = "####"  # the text before the answer in GSM8K and in data of the same format
REWARDS: dict[str, Callable[[Scorer], Reward]] = {}  # by name; filled by `register_reward`


class RewardError(ActshiftError):
    """A reward function failed. Its source may be corrected before the run is resumed."""


@dataclass(frozen=True)
class Reward:
    """A reward function with its name, with the signature of TRL's `GRPOTrainer`.

    The function takes `completions`, their `prompts` and the rows' columns, all as lists, and returns one number for
    each completion; None means that the completion is not judged.

    Raises:
        RewardError: when called, if the function raises or returns anything else; the message names the step.

    Example:
        >>> reward = Reward("short", lambda completions, **columns: [-len(text) for text in completions])
        >>> reward(completions=["a", "bcd"])
        [-1.0, -3.0]
    """

    name: str
    function: Callable[..., Any]

    @property
    def __name__(self) -> str:
        """The name that TRL logs."""
        return self.name

    def __call__(self, *, completions: Sequence[str], **columns: Any) -> list[float | None]:
        """Return the reward of each completion."""
        state = columns.get("trainer_state")
        step = f" at step {state.global_step + 1}; fix it and continue with --resume" if state is not None else ""
        try:
            values = self.function(completions=completions, **columns)
        except Exception as error:  # user code may raise anything
            raise RewardError(f"The reward {self.name} raised {_summary(error)}{step}.") from error
        if problem := _problem(values, len(completions)):
            raise RewardError(f"The reward {self.name} {problem}{step}.")
        return [None if value is None else float(value) for value in values]


def _problem(values: Any, expected: int) -> str | None:
    try:
        rewards = list(values)
    except TypeError:
        return f"returned {type(values).__name__}, not a list with one number per completion"
    if len(rewards) != expected:
        return f"returned {len(rewards)} numbers for {expected} completions"
    wrong = (value for value in rewards if not _is_reward(value))
    return next((f"returned {value!r:.60}, which is not a finite number" for value in wrong), None)


def _is_reward(value: Any) -> bool:
    try:
        return value is None or (not isinstance(value, str) and math.isfinite(float(value)))
    except (TypeError, ValueError):
        return False


def _summary(error: Exception) -> str:
    return f"{type(error).__name__} ({first_line(error).rstrip('.')})"


def register_reward(factory: Callable[[Scorer], Reward]) -> Callable[[Scorer], Reward]:
    """Add a built-in reward to `REWARDS` under its function's name; `settings` reads the names from this file."""
    REWARDS[factory.__name__] = factory
    return factory


@register_reward
def right_answer(scorer: Scorer) -> Reward:
    """Return a reward of 1 for completions that `scorer` accepts, given the row's `answer` and `choices`.

    >>> from actshift.tasks import get_scorer
    >>> right_answer(get_scorer("number"))(completions=["So 42.", "41"], answer=["42", "42"])
    [1.0, 0.0]
    """
    return _row_reward("right_answer", scorer)


@register_reward
def right_form(scorer: Scorer) -> Reward:
    """Return a reward of 1 for completions that state an answer, correct or not, in the format of the row's reference.

    If the `reference` has its answer behind `####`, the completion must end with such a mark and one line in which
    `scorer` finds an answer. Otherwise `scorer` must find an answer anywhere in the completion.

    Raises:
        ActshiftError: the scorer is exact, which accepts any text as an answer.

    Source: this project, docs/method.md#scorers.

    >>> from actshift.tasks import get_scorer
    >>> reward = right_form(get_scorer("number"))
    >>> reward(completions=["1 + 1 = 2\\n#### 2", "It is 2."], reference=["#### 3", "#### 3"])
    [1.0, 0.0]
    """
    if scorer.name == "exact":
        raise ActshiftError("right_form needs a scorer that extracts answers, such as number; exact accepts any text.")

    def has_form(completion: str, row: Mapping[str, Any]) -> bool:
        if ANSWER_MARK not in str(row.get("reference", "")):
            return scorer.extract(completion, row) is not None
        _, mark, answer = completion.rpartition(ANSWER_MARK)
        return bool(mark) and "\n" not in answer.strip() and scorer.extract(answer, row) is not None

    return _row_reward("right_form", has_form)


def _row_reward(name: str, judge: Callable[[str, Mapping[str, Any]], bool]) -> Reward:
    def rewards(completions: Sequence[str], **columns: Any) -> list[float]:
        lists = {column: values for column, values in columns.items() if isinstance(values, list)}
        rows = ({column: values[index] for column, values in lists.items()} for index in range(len(completions)))
        return [float(judge(completion, row)) for completion, row in zip(completions, rows, strict=True)]

    return Reward(name, rewards)


def custom_reward(name: str) -> Reward:
    """Return the user's function `module:function` as a reward; the module may be in the working directory.

    Raises:
        ActshiftError: the module cannot be imported, or has no such function with `**columns`.

    >>> custom_reward("builtins:len")
    Traceback (most recent call last):
        ...
    actshift.errors.ActshiftError: The reward builtins:len cannot be called as TRL calls it; ...
    """
    module_name, _, function_name = name.partition(":")
    module = _import_user_module(module_name)
    function: Any = getattr(module, function_name, None)
    if not callable(function):
        functions = [attribute for attribute, value in vars(module).items() if inspect.isfunction(value)]
        problem = f"does not exist{did_you_mean(function_name, functions)}" if function is None else "is not a function"
        function_name = function_name or "a function without a name"
        raise ActshiftError(f"The reward {name}: {function_name} {problem} in {module_name}.")
    if not _takes_columns(function):
        fix = f"define it as {function_name}(completions, **columns)"
        raise ActshiftError(f"The reward {name} cannot be called as TRL calls it; {fix}.")
    return Reward(name, function)


def hash_reward(name: str) -> str:
    """Return a hash of the files that define the reward `module:function`, also those that its module imports.

    Only files next to the module, or in folders there, count. Installed packages have a version instead.

    Raises:
        ActshiftError: `custom_reward` raises, or a file cannot be read.
    """
    function = inspect.unwrap(custom_reward(name).function)
    modules = [sys.modules[name.partition(":")[0]], sys.modules.get(getattr(function, "__module__", "") or "")]
    root = next((file.parent for module in modules if (file := _source_of(module))), None)
    files: set[Path] = set()
    for module in modules:  # grows while it is read
        file = _source_of(module)
        if file and root and file.is_relative_to(root) and "site-packages" not in file.parts and file not in files:
            files.add(file)
            values = list(vars(module).values())
            names = (
                value.__name__ if inspect.ismodule(value) else getattr(value, "__module__", None) for value in values
            )
            modules += [sys.modules[other] for other in names if isinstance(other, str) and other in sys.modules]
    return hash_files(sorted(files))


def _source_of(module: ModuleType | None) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file).resolve() if file else None


def _import_user_module(name: str) -> ModuleType:
    if os.getcwd() not in sys.path:  # console scripts do not search it, unlike `python -m`
        sys.path.insert(0, os.getcwd())
    try:
        return import_module(name)
    except Exception as error:  # user code may raise anything
        problem = f"The module {name!r} of the reward cannot be imported: {_summary(error)}."
        if isinstance(error, ModuleNotFoundError) and error.name and name.startswith(error.name):
            problem = f"There is no module {error.name!r} for the reward, neither in {os.getcwd()} nor installed."
        raise ActshiftError(problem) from error


def _takes_columns(function: Callable[..., Any]) -> bool:
    try:
        kinds = [parameter.kind for parameter in inspect.signature(function).parameters.values()]
    except ValueError:  # some builtins have no signature
        return True
    return inspect.Parameter.VAR_KEYWORD in kinds and not inspect.iscoroutinefunction(function)


def get_rewards(names: Sequence[str], scorer: Scorer) -> list[Reward]:
    """Return rewards by name: those in `REWARDS`, judged by `scorer`, and functions as module:function.

    Raises:
        ActshiftError: a name is unknown, or `custom_reward` raises.

    >>> from actshift.tasks import get_scorer
    >>> [reward.name for reward in get_rewards(["right_answer", "right_form"], get_scorer("number"))]
    ['right_answer', 'right_form']
    """
    for name in names:
        if ":" not in name and name not in REWARDS:
            allowed = f"{' or '.join(REWARDS)}, or a Python function of your own as module:function"
            raise ActshiftError(f"There is no reward {name!r}{did_you_mean(name, REWARDS)}; give {allowed}.")
    return [custom_reward(name) if ":" in name else REWARDS[name](scorer) for name in names]


def run_scorer(settings: TrainSettings) -> Scorer:
    """Return the scorer that the settings name, or else the task's scorer, or else exact match.

    >>> run_scorer(TrainSettings(task="gsm8k")).name
    'number'
    """
    if settings.task and settings.scorer is None:
        return get_task(settings.task).scorer
    return get_scorer(settings.scorer or "exact")


def run_rewards(settings: TrainSettings) -> list[Reward]:
    """Return the rewards of a run; raises ActshiftError without any, or if one is unknown or cannot be used."""
    if not settings.reward:
        raise ActshiftError(f"grpo needs a reward; give --reward {', '.join(REWARDS)} or module:function (repeatable).")
    return get_rewards(settings.reward, run_scorer(settings))


def try_rewards(rewards: Sequence[Reward], examples: Sequence[Mapping[str, Any]]) -> None:
    """Call each reward on rows with their references as completions, to raise its ActshiftError before training."""
    names = dict.fromkeys(name for example in examples for name in example if name != "prompt")
    columns: dict[str, Any] = {name: [example.get(name) for example in examples] for name in names}
    columns |= {"prompts": [example["prompt"] for example in examples], "completion_ids": [[] for _ in examples]}
    completions = [example.get("reference", "") for example in examples]
    for reward in rewards:
        reward(completions=completions, log_extra=lambda *_: None, log_metric=lambda *_: None, **columns)
