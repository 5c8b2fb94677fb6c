"""lm-eval's index of tasks."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from actshift.errors import ActshiftError, did_you_mean
from actshift.extras import require

EXTRA = "harness"


def find_tasks(names: Sequence[str], include_path: str | Path | None = None) -> Any:
    """Return lm-eval's TaskManager, which has all of `names`: those under `include_path`, and if need be its own.

    Raises ActshiftError where a name is not among them, the folder is not there, or lm-eval is not installed.

    >>> find_tasks(["hellaswag"])  # doctest: +SKIP
    """
    manager_of = require("lm_eval.tasks", EXTRA).TaskManager
    folder = None if include_path is None else str(include_path)
    if folder is not None and not Path(folder).is_dir():
        raise ActshiftError(f"There is no folder {folder}; give the one that holds your tasks' YAML files.")
    if not names:
        raise ActshiftError("No task of the harness is named; give some of lm-eval's, such as hellaswag.")
    with quiet():
        if folder is not None:
            manager = manager_of(include_path=folder, include_defaults=False)
            if set(names) <= set(manager.all_subtasks):  # the 14,000 files of lm-eval's own need not be read then
                return manager
        manager = manager_of(include_path=folder)
    for name in names:
        if name not in manager.all_tasks:
            raise ActshiftError(
                f"lm-eval has no task {name!r}{did_you_mean(name, manager.all_tasks)}; `lm-eval ls tasks` lists its "
                "own, and --include-path adds yours."
            )
    return manager


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back what lm-eval logs on its way; what stops it is an exception."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
