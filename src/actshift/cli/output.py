"""Check output files, print results as tables, facts or JSON, and show progress on a terminal."""

import json
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Column

from actshift.files import check_writable


def check_outputs(*paths: Path | None, figure: Path | None = None) -> None:
    """Check that each file can be written; raise ActshiftError before time is spent on its content."""
    for path in filter(None, paths):
        check_writable(path)
    if figure is not None:
        from actshift.analysis.figures import check_figure

        check_figure(figure)


def print_json(values: Any, indent: int | None = None) -> None:
    """Print values as one JSON document on stdout."""
    typer.echo(json.dumps(values, indent=indent, ensure_ascii=False))


def print_facts(facts: Mapping[str, str | None]) -> None:
    """Print one line per fact that is not empty: its name, padded, and its text without wrapping."""
    for name, fact in facts.items():
        if fact:
            typer.echo(f"{name:<12}{fact}")


def print_tables(*tables: Any) -> None:
    """Print tables, reports or lines of text below each other, without highlighting."""
    Console(highlight=False).print(*tables, sep="\n")


def print_report(report: Any, as_json: bool, figure: Path | None) -> None:
    """Save the figure of an analysis's report to a path, if any, and print the report as tables or JSON."""
    save_report_figure(report, figure)
    if as_json:
        print_json(report.to_dict())
    else:
        print_tables(report)


def save_report_figure(report: Any, figure: Path | None) -> None:
    """Save the figure of a report to a path, if any, before the report is printed: stdout may be closed early."""
    if figure is not None:
        from actshift.analysis.figures import save_figure

        save_figure(report.figure(), figure)


def number_columns(*names: str) -> list[Column]:
    """Return right-aligned table columns for numbers."""
    return [Column(name, justify="right", no_wrap=True) for name in names]


@contextmanager
def progress_bar() -> Generator[Callable[..., None], None, None]:
    """Yield a function of a phase, its steps done and their total, which shows a bar per phase on a terminal."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bars: dict[str, TaskID] = {}

        def update(phase: str, done: int, total: int) -> None:
            if phase not in bars:
                bars[phase] = progress.add_task(phase, total=total)
            progress.update(bars[phase], completed=done)

        yield update
