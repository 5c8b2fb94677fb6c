"""The tasks of lm-eval-harness, on a model with whatever adapter is on it."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actshift.errors import ActshiftError, did_you_mean, first_line, require
from actshift.evaluation.generation import evaluating
from actshift.evaluation.prompts import check_long_prompts
from actshift.loading import context_length

if TYPE_CHECKING:
    from rich.table import Table
    from transformers import PreTrainedTokenizerBase


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


def reader(model: Any, tokenizer: PreTrainedTokenizerBase, batch_size: int, long_prompts: str) -> Any:
    """Return `model`, the object as it is, as a model of lm-eval; `long_prompts` is as in `generate_completions`.

    Both kinds of requests go through here: texts to write on from, a batch at a time, the longest first, and pairs of
    a context and its continuation, whose likelihood is asked.
    """
    base: Any = require("lm_eval.models.huggingface", EXTRA).HFLM
    check_long_prompts(long_prompts)

    class Reader(base):
        def tok_batch_encode(self, strings: list[str], *args: Any, left_truncate_len: Any = None, **how: Any) -> Any:
            whole, mask = super().tok_batch_encode(strings, *args, **how)
            if left_truncate_len is None or whole.shape[1] <= left_truncate_len:
                return whole, mask
            _tell(mask.sum(1).tolist(), left_truncate_len, self.max_length, long_prompts)
            return whole[:, -left_truncate_len:], mask[:, -left_truncate_len:]

        def _loglikelihood_tokens(self, requests: list[Any], *args: Any, **how: Any) -> Any:
            # The last token is only predicted, never read.
            lengths = (len(context) + len(continuation) - 1 for _, context, continuation in requests)
            _tell(lengths, self.max_length, self.max_length, long_prompts)
            return super()._loglikelihood_tokens(requests, *args, **how)

    context = context_length(model.config, tokenizer)
    return Reader(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, max_length=context)


def _tell(lengths: Iterable[int], room: int, context: int, long_prompts: str) -> None:
    lengths = list(lengths)
    if not (long := sum(length > room for length in lengths)):
        return
    found = f"{long} of {len(lengths)} prompts of the harness exceed {room} tokens, in a context of {context}"
    if long_prompts == "refuse":
        raise ActshiftError(
            f"{found}; ask for fewer solved examples, or set long_prompts to 'truncate' to have their ends read."
        )
    warnings.warn(f"{found}; of these the end is read.", stacklevel=2)


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
    manager: Any = None,
    num_fewshot: int | None = None,
    limit: int | None = None,
    batch_size: int = 16,
    chat: bool = False,
    long_prompts: str = "refuse",
) -> HarnessReport:
    """Return what lm-eval-harness makes of `model`, the object as it is, on `tasks`: whatever adapter is on it acts.

    `include_path` is a folder with tasks of one's own as YAML files, and `manager` what `find_tasks` returned where it
    was asked before. `num_fewshot` and `limit` (rows a task) are lm-eval's, a task's own if left out. `chat` asks by
    the tokenizer's chat template. `long_prompts` is as in `generate_completions`.

    Raises ActshiftError where lm-eval is not installed, knows no such task, or cannot load a task's data, where the
    tokenizer has no chat template to ask by, and for a prompt that is too long.

    >>> harness(model, tokenizer, ["hellaswag"], limit=100)  # doctest: +SKIP
    """
    if chat and not tokenizer.chat_template:
        raise ActshiftError(f"The tokenizer of {tokenizer.name_or_path} has no chat template; leave out --chat.")
    manager, lm_eval = manager or find_tasks(tasks, include_path), require("lm_eval", EXTRA)
    try:
        with quiet(), evaluating(model):
            figures = lm_eval.simple_evaluate(
                model=reader(model, tokenizer, batch_size, long_prompts),
                tasks=list(tasks),
                task_manager=manager,
                num_fewshot=num_fewshot,
                limit=limit,
                apply_chat_template=chat,
                log_samples=False,
            )
    except ActshiftError:
        raise
    except (OSError, ValueError, KeyError, AssertionError) as error:  # the last says that nothing fits in the context
        raise ActshiftError(f"lm-eval could not run {', '.join(tasks)}: {first_line(error).rstrip('.')}.") from error
    return HarnessReport(figures)
