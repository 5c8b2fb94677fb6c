"""Score a steered model on the tasks of lm-eval-harness, in this process, so that its adapter acts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actshift.errors import ActshiftError, first_line
from actshift.evaluation.generation import evaluating
from actshift.evaluation.harness.reader import reader
from actshift.evaluation.harness.report import HarnessReport
from actshift.evaluation.harness.tasks import EXTRA, find_tasks, quiet
from actshift.extras import require

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


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
