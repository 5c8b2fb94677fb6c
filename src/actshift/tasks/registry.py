"""Tasks by name: each file of `benchmarks/` is one."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from actshift.errors import ActshiftError, did_you_mean
from actshift.files import ENDINGS
from actshift.tasks import benchmarks
from actshift.tasks.custom import read_task
from actshift.tasks.task import MAX_NEW_TOKENS, Task


def task_names() -> tuple[str, ...]:
    """Return the names of all tasks, in order.

    >>> "gsm8k" in task_names()
    True
    """
    return tuple(sorted(name for _, name, _ in iter_modules(benchmarks.__path__) if not name.startswith("_")))


def get_task(name: str | Path) -> Task:
    """Return the task of this name, or the one that a .yaml or .json file describes (see `read_task`).

    Raises ActshiftError for an unknown name, with the nearest one, and for a file that describes no task.

    >>> get_task("boolq").labels
    ('no', 'yes')
    """
    if Path(name).suffix.lower() in ENDINGS:
        return read_task(name)
    if name not in (names := task_names()):
        raise ActshiftError(
            f"There is no task {str(name)!r}{did_you_mean(name, names)}; the tasks are {', '.join(names)}, "
            "or give a .yaml file that describes your own."
        )
    return import_module(f"actshift.tasks.benchmarks.{name}").TASK


def completion_length(asked: int | None, task: str | None) -> int:
    """Return how many tokens a completion may have: as asked for, or as the task says, or else 64.

    >>> completion_length(None, "gsm8k"), completion_length(8, "gsm8k"), completion_length(None, None)
    (256, 8, 64)
    """
    return asked or (get_task(task).max_new_tokens if task else MAX_NEW_TOKENS)
