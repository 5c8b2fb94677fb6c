"""Benchmarks and custom tasks by name: their rows, scorers and training settings."""

from actshift.tasks.registry import completion_length, get_task, task_names
from actshift.tasks.scorers import Scorer, get_scorer
from actshift.tasks.task import Task

__all__ = ["Scorer", "Task", "completion_length", "get_scorer", "get_task", "task_names"]
