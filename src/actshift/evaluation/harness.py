"""Run tasks of lm-eval-harness on a loaded model, with its active adapter."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actshift.data import check_template
from actshift.errors import ActshiftError, check_choice, did_you_mean, first_line, require
from actshift.evaluation.generation import evaluation_mode
from actshift.evaluation.prompts import LONG_PROMPTS
from actshift.loading import context_length

if TYPE_CHECKING:
    from rich.table import Table
    from transformers import PreTrainedTokenizerBase

EXTRA = "harness"  # the extra of actshift that installs lm-eval


@dataclass(frozen=True)
class HarnessReport:
    """The results of lm-eval: its own dictionary `figures`, which prints as a table and converts to JSON."""

    figures: dict[str, Any]

    def scores(self) -> Iterator[tuple[str, str, float, float | None]]:
        """Yield the task, the name of the metric, its value, and its standard error if lm-eval computed one."""
        for task, metrics in self.figures["results"].items():
            for name, value in metrics.items():
                metric, _, filter_name = name.partition(",")
                if isinstance(value, int | float) and not metric.endswith("_stderr") and filter_name:
                    error = metrics.get(f"{metric}_stderr,{filter_name}")
                    label = metric if filter_name == "none" else f"{metric} ({filter_name})"
                    yield task, label, value, error if isinstance(error, int | float) else None

    def to_json(self) -> str:
        """Return all results as lm-eval writes them."""
        return json.dumps(self.figures, indent=2, ensure_ascii=False, default=str) + "\n"

    def __rich__(self) -> Table:
        from rich.table import Table

        table = Table("task", "measure", "score", "± stderr", box=None, pad_edge=False)
        for task, metric, value, error in self.scores():
            table.add_row(task, metric, f"{value:.4f}", "–" if error is None else f"{error:.4f}")
        return table


def run_harness(
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
    system: str | None = None,
    template_kwargs: Mapping[str, Any] | None = None,
    long_prompts: str = "refuse",
) -> HarnessReport:
    """Run tasks of lm-eval-harness on `model` itself, including its active adapter.

    Args:
        tasks: Names of lm-eval tasks, or of tasks in `include_path`, a folder with your own tasks as YAML files.
        manager: A result of `find_tasks`, to avoid a second search.
        num_fewshot: Solved examples per prompt; None for the task's default.
        chat: Render the chat template, with the `system` prompt and the arguments `template_kwargs`.
        long_prompts: "refuse" or "truncate", as in `generate_completions`.

    Raises:
        ActshiftError: lm-eval is not installed, a task or its data cannot be loaded, `chat` is set and the tokenizer
            has no chat template, or a prompt is too long.

    Example:
        >>> run_harness(model, tokenizer, ["hellaswag"], limit=100)  # doctest: +SKIP
    """
    if chat:
        check_template(tokenizer)
    from jinja2 import TemplateError

    manager, lm_eval = manager or find_tasks(tasks, include_path), require("lm_eval", EXTRA)
    settings = {"num_fewshot": num_fewshot, "limit": limit, "log_samples": False}
    settings |= {"apply_chat_template": chat, "system_instruction": system if chat else None}
    # A chat template writes the start token, if the model has one: another one would differ from training.
    form = {"chat_template_args": dict(template_kwargs or {}), "add_bos_token": False} if chat else {}
    try:
        with _quiet_libraries(), evaluation_mode(model):
            checked = _harness_model(model, tokenizer, batch_size, long_prompts, **form)
            results = lm_eval.simple_evaluate(model=checked, tasks=list(tasks), task_manager=manager, **settings)
            return HarnessReport(results)
    except ActshiftError:
        raise
    # lm-eval asserts that a request fits the context.
    except (OSError, ValueError, LookupError, AssertionError, TemplateError) as error:
        raise ActshiftError(f"lm-eval could not run {', '.join(tasks)}: {first_line(error).rstrip('.')}.") from error


def find_tasks(names: Sequence[str], include_path: str | Path | None = None) -> Any:
    """Return lm-eval's TaskManager with all tasks in `names`, from `include_path` and from lm-eval's own.

    Raises:
        ActshiftError: A task or the folder does not exist, or lm-eval is not installed.

    Example:
        >>> find_tasks(["hellaswag"])  # doctest: +SKIP
    """
    manager_class = require("lm_eval.tasks", EXTRA).TaskManager
    folder = None if include_path is None else str(include_path)
    if folder is not None and not Path(folder).is_dir():
        raise ActshiftError(f"There is no folder {folder}. Give the folder that contains your tasks' YAML files.")
    if not names:
        raise ActshiftError("No task of the harness is named. Give some of lm-eval's, such as hellaswag.")
    with _quiet_libraries():
        if folder is not None:
            manager = manager_class(include_path=folder, include_defaults=False)
            if set(names) <= set(manager.all_subtasks):  # avoids reading lm-eval's own 14,000 files
                return manager
        manager = manager_class(include_path=folder)
    if unknown := [name for name in names if name not in manager.all_tasks]:
        problem = f"lm-eval has no task {unknown[0]!r}{did_you_mean(unknown[0], manager.all_tasks)}"
        raise ActshiftError(f"{problem}. `lm-eval ls tasks` lists them, and --include-path adds yours.")
    return manager


def _harness_model(
    model: Any, tokenizer: PreTrainedTokenizerBase, batch_size: int, long_prompts: str, **form: Any
) -> Any:
    """Return `model` wrapped as lm-eval's HFLM, which truncates long requests silently, with a check of lengths."""
    base: Any = require("lm_eval.models.huggingface", EXTRA).HFLM
    check_choice("long_prompts", long_prompts, LONG_PROMPTS)

    class CheckedModel(base):
        def tok_batch_encode(self, strings: list[str], *args: Any, left_truncate_len: Any = None, **how: Any) -> Any:
            ids, mask = super().tok_batch_encode(strings, *args, **how)
            if left_truncate_len is None or ids.shape[1] <= left_truncate_len:
                return ids, mask
            _check_lengths(mask.sum(1).tolist(), left_truncate_len, self.max_length, long_prompts)
            return ids[:, -left_truncate_len:], mask[:, -left_truncate_len:]

        def _loglikelihood_tokens(self, requests: list[Any], *args: Any, **how: Any) -> Any:
            # The last token is predicted, but never an input.
            lengths = (len(context) + len(continuation) - 1 for _, context, continuation in requests)
            _check_lengths(lengths, self.max_length, self.max_length, long_prompts)
            return super()._loglikelihood_tokens(requests, *args, **how)

    context = context_length(model.config, tokenizer)
    return CheckedModel(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, max_length=context, **form)


def _check_lengths(lengths: Iterable[int], room: int, context: int, long_prompts: str) -> None:
    """Raise ActshiftError, or warn if `long_prompts` is "truncate", if a prompt exceeds `room` tokens."""
    too_long = [length > room for length in lengths]
    if any(too_long):
        counts = f"{sum(too_long)} of {len(too_long)}"
        problem = f"{counts} prompts of the harness exceed {room} tokens, in a context of {context}"
        if long_prompts == "refuse":
            raise ActshiftError(f"{problem}. Lower --num-fewshot, or keep their ends by long_prompts='truncate'.")
        warnings.warn(f"{problem}; only the end of each is used.", stacklevel=2)


@contextmanager
def _quiet_libraries() -> Generator[None, None, None]:
    """Suppress log messages up to warnings, and the count of datasets' loads, which would also report local files.

    lm-eval raises an exception for every real problem.
    """
    from datasets import config

    before, counts = logging.root.manager.disable, config.HF_UPDATE_DOWNLOAD_COUNTS
    logging.disable(logging.WARNING)
    config.HF_UPDATE_DOWNLOAD_COUNTS = False
    try:
        yield
    finally:
        logging.disable(before)
        config.HF_UPDATE_DOWNLOAD_COUNTS = counts
