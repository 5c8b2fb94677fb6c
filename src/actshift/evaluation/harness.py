"""Score a steered model on the tasks of lm-eval-harness, in this process, so that its adapter acts."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actshift.errors import ActshiftError, did_you_mean, first_line
from actshift.evaluation.generation import evaluating
from actshift.extras import require

if TYPE_CHECKING:
    from rich.table import Table
    from transformers import PreTrainedTokenizerBase

EXTRA = "harness"


@dataclass(frozen=True)
class HarnessReport:
    """What lm-eval found: `figures` is its own dictionary of results, which prints as a table and goes to JSON."""

    figures: dict[str, Any]

    def scores(self) -> Iterator[tuple[str, str, float, float | None]]:
        """Yield every score: the task, lm-eval's name of the measure, its value, and its standard error if known."""
        for task, measures in self.figures["results"].items():
            for name, value in measures.items():
                measure, _, filtered = name.partition(",")
                if isinstance(value, int | float) and not measure.endswith("_stderr") and filtered:
                    error = measures.get(f"{measure}_stderr,{filtered}")
                    label = measure if filtered == "none" else f"{measure} ({filtered})"
                    yield task, label, value, error if isinstance(error, int | float) else None

    def to_json(self) -> str:
        """Return all that lm-eval says, as it writes it."""
        return json.dumps(self.figures, indent=2, ensure_ascii=False, default=str) + "\n"

    def __rich__(self) -> Table:
        """Return the scores as a table."""
        from rich.table import Table

        table = Table("task", "measure", "score", "± stderr", box=None, pad_edge=False)
        for task, measure, value, error in self.scores():
            table.add_row(task, measure, f"{value:.4f}", "–" if error is None else f"{error:.4f}")
        return table


def harness(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[str],
    *,
    include_path: str | Path | None = None,
    num_fewshot: int | None = None,
    limit: int | None = None,
    batch_size: int = 16,
) -> HarnessReport:
    """Return what lm-eval-harness makes of `model`, the object as it is, on `tasks`: whatever adapter is on it acts.

    `include_path` is a folder with tasks of one's own as YAML files; `num_fewshot` and `limit` (rows a task) are
    lm-eval's, a task's own if left out.

    Raises ActshiftError where lm-eval is not installed, knows no such task, or cannot load a task's data.

    >>> harness(model, tokenizer, ["hellaswag"], limit=100)  # doctest: +SKIP
    """
    manager = _manager(tasks, include_path)
    lm_eval, models = require("lm_eval", EXTRA), require("lm_eval.models.huggingface", EXTRA)
    try:
        with _quiet(), evaluating(model):
            figures = lm_eval.simple_evaluate(
                model=models.HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size),
                tasks=list(tasks),
                task_manager=manager,
                num_fewshot=num_fewshot,
                limit=limit,
                log_samples=False,
            )
    except (OSError, ValueError, KeyError) as error:
        raise ActshiftError(f"lm-eval could not run {', '.join(tasks)}: {first_line(error).rstrip('.')}.") from error
    return HarnessReport(figures)


def _manager(names: Sequence[str], include_path: str | Path | None) -> Any:
    """Return lm-eval's index of tasks, its own and those under `include_path`, which has all of `names`."""
    tasks = require("lm_eval.tasks", EXTRA)
    if include_path is not None and not Path(include_path).is_dir():
        raise ActshiftError(f"There is no folder {include_path}; give the one that holds your tasks' YAML files.")
    with _quiet():
        manager = tasks.TaskManager(include_path=None if include_path is None else str(include_path))
    for name in names:
        if name not in manager.all_tasks:
            raise ActshiftError(
                f"lm-eval has no task {name!r}{did_you_mean(name, manager.all_tasks)}; `lm-eval ls tasks` lists its "
                "own, and --include-path adds yours."
            )
    return manager


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what lm-eval logs on its way; what stops it is an exception."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
