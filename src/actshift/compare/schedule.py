"""Keep as many cells under way as there are processes, until none is left to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait

from actshift.compare.cell import Cell
from actshift.compare.protocol import Standing, Task


def run_tasks(
    standing: Standing,
    at_once: int,
    submit: Callable[[Task], Future[str | None]],
    settle: Callable[[Cell, str | None], None],
    started: Callable[[Sequence[Cell]], None],
) -> None:
    """Submit the open tasks of `standing`, `at_once` at a time, and `settle` each with its error or None.

    `settle` must bring `standing` up to date, from which follows what is open next; `started` is told what is under
    way whenever that changes.
    """
    running: dict[Future[str | None], Task] = {}
    while True:
        under_way = {task.cell for task in running.values()}
        for task in standing.open_tasks():
            if len(running) == at_once:
                break
            if task.cell not in under_way:
                running[submit(task)] = task
        if not running:
            return
        started([task.cell for task in running.values()])
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            settle(running.pop(future).cell, future.result())
