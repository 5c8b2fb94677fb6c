"""`actshift eval`: accuracy of greedy completions, on rows, on a task, or on the tasks of lm-eval-harness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from actshift.cli.options import Data, DataDir, check_source
from actshift.cli.options import Task as TaskName
from actshift.cli.steered import Adapter, AsJson, Half, LongPrompts, Model, Strength, TrustRemoteCode, load_steered
from actshift.errors import ActshiftError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from actshift.evaluation import EvalReport
    from actshift.tasks import Scorer, Task


def names_of(names: str) -> list[str]:
    """Return the tasks of a list with commas between.

    >>> names_of("hellaswag, arc_easy")
    ['hellaswag', 'arc_easy']
    """
    return [name.strip() for name in names.split(",") if name.strip()]


def check_harness(beside: Mapping[str, Any], names: Sequence[str], include_path: Path | None) -> Any:
    """Return lm-eval's index of tasks, which has all of `names`.

    Raises ActshiftError where it lacks one, or an option `beside` is given that only other rows have.
    """
    from actshift.evaluation.harness import find_tasks

    if given := [option for option, value in beside.items() if value is not None]:
        raise ActshiftError(f"The tasks of --harness bring rows and scorers of their own; leave out {given[0]}.")
    return find_tasks(names, include_path)


def run_harness(
    model: Any, tokenizer: PreTrainedTokenizerBase, names: Sequence[str], as_json: bool, out: Path | None, **asked: Any
) -> None:
    """Run the tasks, and show and write what lm-eval says of them."""
    from rich.console import Console

    from actshift.evaluation.harness import harness
    from actshift.files import write_whole

    report = harness(model, tokenizer, names, **asked)
    if out is not None:
        write_whole(out, report.to_json())
    if as_json:
        typer.echo(report.to_json(), nl=False)
        return
    Console(highlight=False).print(report)
    if out is not None:
        typer.echo(f"written   {out}")


def evaluate(
    data: Data = None,
    task: TaskName = None,
    data_dir: DataDir = None,
    model: Model = None,
    adapter: Adapter = None,
    split: Annotated[str | None, typer.Option("--split", help="Of a task (default: test) or a hub dataset.")] = None,
    scorer: Annotated[str | None, typer.Option("--scorer", help="Who judges --data (default: exact match).")] = None,
    chat: Annotated[
        bool | None, typer.Option("--chat/--no-chat", help="A task in the chat template (default: where there is one).")
    ] = None,
    harness: Annotated[
        str | None, typer.Option("--harness", help="Tasks of lm-eval-harness in place of rows, with commas between.")
    ] = None,
    include_path: Annotated[
        Path | None, typer.Option("--include-path", help="A folder with harness tasks of your own, as YAML files.")
    ] = None,
    num_fewshot: Annotated[
        int | None, typer.Option("--num-fewshot", min=0, help="Solved examples before each prompt of the harness.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Use only the first rows.")] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Rows at a time.")] = 16,
    max_new_tokens: Annotated[
        int | None,
        typer.Option("--max-new-tokens", min=1, help="Tokens to write at most (default: the task's or 64)."),
    ] = None,
    long_prompts: LongPrompts = "refuse",
    strength: Strength = 1.0,
    half: Half = "both",
    as_json: AsJson = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Write all predictions to this JSONL file; of a harness its results, as JSON."),
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Measure the share of rows that the model completes right, decoding greedily.

    Rows of --data are right where the completion matches exactly; a --task has its own prompts and its own scorer. A
    classifier is asked for the labels of rows, or of a task that has some.
    """
    from actshift.data import LABELLED, LANGUAGE, load_rows
    from actshift.files import check_writable

    if out is not None:
        check_writable(out)
    if harness is not None:
        beside = {"--data": data, "--task": task, "--data-dir": data_dir, "--split": split, "--scorer": scorer}
        names = names_of(harness)
        manager = check_harness({**beside, "--max-new-tokens": max_new_tokens}, names, include_path)
        loaded, tokenizer, _ = load_steered(model, [adapter] if adapter else [], strength, trust_remote_code, half)
        asked = {"num_fewshot": num_fewshot, "limit": limit, "batch_size": batch_size, "long_prompts": long_prompts}
        run_harness(loaded, tokenizer, names, as_json, out, manager=manager, chat=bool(chat), **asked)
        return
    if include_path is not None or num_fewshot is not None:
        raise ActshiftError("--include-path and --num-fewshot go with --harness.")
    chosen, judge = _chosen(data, task, data_dir, scorer, chat)
    # Before the model, which takes longer.
    kinds = (*LABELLED, *LANGUAGE)
    rows = chosen.load(split or "test", data_dir, limit) if chosen else load_rows(data or "", split, limit, kinds)
    loaded, tokenizer, _ = load_steered(model, [adapter] if adapter else [], strength, trust_remote_code, half)
    if chosen and (form := _form(loaded, tokenizer, chat)) != "text":
        rows = chosen.load(split or "test", data_dir, limit, form=form)

    from actshift import evaluation
    from actshift.tasks import completion_length

    report = evaluation.evaluate(
        loaded,
        tokenizer,
        rows,
        completion_length(max_new_tokens, task),
        batch_size,
        show_progress=True,
        scorer=judge,
        long_prompts=long_prompts,
    )
    _show(report, as_json, out)


def _chosen(
    data: str | None, task: str | None, data_dir: str | None, scorer: str | None, chat: bool | None
) -> tuple[Task | None, Scorer | None]:
    """Return the task, if it is one that is evaluated, and who judges."""
    from actshift.tasks import get_scorer, get_task

    check_source(data, task, data_dir)
    if task is not None:
        if scorer is not None:
            raise ActshiftError(f"The task {task} has a scorer of its own; --scorer goes with --data.")
        chosen = get_task(task)
        return chosen, chosen.scorer
    if chat is not None:
        raise ActshiftError("--chat and --no-chat go with --task; of --data, rows of messages use the chat template.")
    return None, get_scorer(scorer) if scorer is not None else None


def _form(model: Any, tokenizer: PreTrainedTokenizerBase, chat: bool | None) -> Literal["text", "messages", "labels"]:
    """How the model reads a task: a classifier with labels, others by the chat template or as text."""
    from actshift.model_head import head_of

    if head_of(model) == "SEQ_CLS":
        return "labels"
    if chat and not tokenizer.chat_template:
        raise ActshiftError(f"The tokenizer of {tokenizer.name_or_path} has no chat template; leave out --chat.")
    return "messages" if chat or (chat is None and tokenizer.chat_template) else "text"


def _show(report: EvalReport, as_json: bool, out: Path | None) -> None:
    import json

    from actshift.files import write_whole

    figures = report.to_dict()
    rows = figures.pop("predictions")
    if out is not None:
        write_whole(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    if as_json:
        typer.echo(json.dumps(figures))
    else:
        typer.echo(str(report))
        if out is not None:
            typer.echo(f"written   {out}")
