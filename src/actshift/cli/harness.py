"""`actshift eval --harness`: the tasks of lm-eval-harness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from actshift.errors import ActshiftError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


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
