"""`actshift eval`: accuracy of greedy completions on rows, on a task, or on the tasks of lm-eval-harness."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Option

from actshift.cli import options
from actshift.cli.models import load_steered
from actshift.cli.output import PlainConsole, check_outputs, echo, to_json
from actshift.cli.prompts import ChatMode, choose_chat
from actshift.cli.rows import check_source
from actshift.errors import ActshiftError
from actshift.files import write_atomically
from actshift.tasks.scorers import SCORERS

if TYPE_CHECKING:
    from actshift.evaluation.harness import HarnessReport
    from actshift.tasks import Scorer, Task


def evaluate(
    data: options.Data = None,
    columns: options.Columns = None,
    task: options.Task = None,
    data_dir: options.DataDir = None,
    model: options.Model = None,
    adapter: options.Adapter = None,
    split: Annotated[str | None, Option(help="Split of a task (default test) or hub dataset (default train).")] = None,
    scorer: Annotated[str | None, Option(help=f"Scorer of --data: {', '.join(SCORERS)}. Default: exact match.")] = None,
    chat: options.Chat = None,
    system: options.System = None,
    harness: Annotated[str | None, Option(help="Tasks of lm-eval-harness, separated by commas.")] = None,
    include_path: Annotated[Path | None, Option(help="Folder with your own --harness tasks, as YAML files.")] = None,
    num_fewshot: Annotated[
        int | None, Option(min=0, max=options.LARGEST, help="Solved examples per harness prompt. Default: the task's.")
    ] = None,
    limit: Annotated[
        int | None, Option(min=1, max=options.LARGEST, help="Use only this many rows, from the first.")
    ] = None,
    batch_size: options.BatchSize = 16,
    max_new_tokens: Annotated[
        int | None,
        Option(min=1, max=options.LARGEST, help="Maximum new tokens. Default: the task's, or as the rows need."),
    ] = None,
    long_prompts: options.LongPrompts = "refuse",
    strength: options.Strength = None,
    half: options.Half = "both",
    as_json: options.AsJson = False,
    out: Annotated[Path | None, Option(help="File for all predictions (JSONL) or harness results (JSON).")] = None,
    revision: options.Revision = None,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Measure the accuracy of greedy completions on rows, on a task, or on lm-eval tasks.

    A completion of --data is correct if it matches exactly, or if --scorer accepts it. A --task brings its own prompts
    and scorer. If rows have choices, the most probable choice of each row is scored as well. A classifier predicts the
    labels of rows, or of a task that has labels. Prompts are rendered by the chat template if training rendered it;
    without a record of that, messages are, and so is a task if there is a template.
    """
    check_outputs(out)
    adapters = [adapter] if adapter else []
    load = partial(load_steered, model, adapters, strength, trust_remote_code, half, revision=revision)
    if harness is not None:
        own_rows = {"--data": data, "--task": task, "--data-dir": data_dir, "--split": split, "--scorer": scorer}
        excluded = {**own_rows, "--map": columns, "--max-new-tokens": max_new_tokens}
        if unused := [option for option, value in excluded.items() if value is not None]:
            raise ActshiftError(f"The tasks of --harness have rows and scorers of their own. Leave out {unused[0]}.")
        settings = {"num_fewshot": num_fewshot, "limit": limit, "batch_size": batch_size, "long_prompts": long_prompts}
        mode = choose_chat(chat, system, adapters or [model])
        template: Any = {"system": mode.system, "template_kwargs": mode.template_kwargs}
        results = _run_harness(load, harness, include_path, chat=bool(mode.rendered), **template, **settings)
        _show(results, results.to_json(), results.to_json(), as_json, out)
        return
    if include_path is not None or num_fewshot is not None:
        raise ActshiftError("--include-path and --num-fewshot need --harness.")
    check_source(data, task, data_dir, columns)
    chosen, judge = _resolve_task(task, scorer)
    from actshift.data import LABELLED, LANGUAGE, check_template, is_chat, load_rows

    mode = choose_chat(chat, system, adapters or [model])
    # Rows are read before the model, which takes longer.
    kinds = (*LABELLED, *LANGUAGE)
    if chosen:
        rows = chosen.load(split or "test", data_dir, limit)
    else:
        rows = load_rows(data or "", split, limit, kinds, columns)
    loaded, tokenizer, _ = load()
    are_chats = is_chat(rows)
    if chosen:
        mode = mode.or_else(bool(tokenizer.chat_template))
    elif are_chats and chat is None:
        mode = replace(mode, rendered=True)
    if mode.rendered and not are_chats:
        check_template(tokenizer)
    if chosen and (form := _task_form(loaded, mode)) != "text":
        rows = chosen.load(split or "test", data_dir, limit, form=form)
    if "label" not in rows.column_names:
        rows = mode.chats(rows)

    from actshift import evaluation

    how = (max_new_tokens or (chosen.max_new_tokens if chosen else None), batch_size, True)
    report = evaluation.evaluate(loaded, tokenizer, rows, *how, scorer=judge, long_prompts=long_prompts)
    figures = report.to_dict()
    predictions = "".join(to_json(row) + "\n" for row in figures.pop("predictions"))
    _show(str(report), json.dumps(figures) + "\n", predictions, as_json, out)


def _run_harness(load: Callable[[], Any], harness: str, include_path: Path | None, **settings: Any) -> HarnessReport:
    """Find the tasks before the model is loaded, which takes longer, and run them."""
    from actshift.evaluation.harness import find_tasks, run_harness

    names = [name.strip() for name in harness.split(",") if name.strip()]
    manager = find_tasks(names, include_path)
    model, tokenizer, _ = load()
    return run_harness(model, tokenizer, names, manager=manager, **settings)


def _resolve_task(task: str | None, scorer: str | None) -> tuple[Task | None, Scorer | None]:
    """Return the task named by --task, if any, and the scorer; None for exact match."""
    from actshift.tasks import get_scorer, get_task

    if task is None:
        return None, get_scorer(scorer) if scorer is not None else None
    if scorer is not None:
        raise ActshiftError(f"The task {task} has a scorer of its own. Use --scorer only with --data.")
    chosen = get_task(task)
    return chosen, chosen.scorer


def _task_form(model: Any, mode: ChatMode) -> Literal["text", "messages", "labels"]:
    """Return the form in which the model reads a task: labels for a classifier, else chat messages or plain text."""
    from actshift.model_head import head_of

    if head_of(model) == "SEQ_CLS":
        return "labels"
    return "messages" if mode.rendered else "text"


def _show(report: HarnessReport | str, figures: str, content: str, as_json: bool, out: Path | None) -> None:
    """Write `content` to the output file, and print the report, or its figures as JSON."""
    if out is not None:
        write_atomically(out, content)
    if as_json:
        echo(figures, nl=False)
        return
    PlainConsole().print(report)
    if out is not None:
        echo(f"written   {out}")
