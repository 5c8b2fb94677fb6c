"""One's own task, from a small file."""

from actshift.tasks.custom.read import read_task

__all__ = ["read_task"]
