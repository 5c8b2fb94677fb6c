"""Benchmarks and custom tasks by name. Every module-level `Task` in `benchmarks/` is registered."""

from functools import cache
from pathlib import Path

from actshift.errors import ActshiftError, did_you_mean, show
from actshift.mappings import MAPPING_SUFFIXES
from actshift.tasks.custom import read_task
from actshift.tasks.scorers import Scorer, get_scorer, instances_in
from actshift.tasks.task import Task

__all__ = ["Scorer", "Task", "completion_length", "get_scorer", "get_task", "task_names"]

MAX_NEW_TOKENS = 64  # the length limit of a completion if neither the user nor a task sets one


def task_names() -> tuple[str, ...]:
    """Return the names of all benchmarks in alphabetical order.

    >>> "gsm8k" in task_names()
    True
    """
    return tuple(_benchmarks())


def get_task(name: str | Path) -> Task:
    """Return the benchmark of this name, or the custom task of a .yaml or .json file (see `read_task`).

    Raises:
        ActshiftError: the name is unknown, or the file does not describe a task.

    >>> get_task("boolq").labels
    ('no', 'yes')
    """
    if not isinstance(name, str | Path):  # pyright: ignore[reportUnnecessaryIsInstance]  values of files
        raise ActshiftError(f"A task must be a name or a file, got {show(name)}.")
    if Path(name).suffix.lower() in MAPPING_SUFFIXES:
        return read_task(name)
    if task := (benchmarks := _benchmarks()).get(str(name)):
        return task
    raise ActshiftError(
        f"There is no task {str(name)!r}{did_you_mean(name, benchmarks)}; use one of {', '.join(benchmarks)}, "
        "or a .yaml file that describes a custom task."
    )


def completion_length(requested: int | None, task: str | None) -> int:
    """Return the length limit of a completion in tokens: the requested one, the task's, or `MAX_NEW_TOKENS`.

    >>> completion_length(None, "gsm8k"), completion_length(8, "gsm8k"), completion_length(None, None)
    (256, 8, 64)
    """
    return requested or (get_task(task).max_new_tokens if task else MAX_NEW_TOKENS)


@cache
def _benchmarks() -> dict[str, Task]:
    tasks = instances_in("actshift.tasks.benchmarks", Task)
    return {task.name: task for task in sorted(tasks, key=lambda task: task.name)}
