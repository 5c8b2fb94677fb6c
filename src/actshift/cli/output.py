"""Check output files, print results as tables, facts or JSON, and show progress on a terminal."""

import json
import re
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import Progress, TaskID
from rich.segment import Segment
from rich.table import Column

from actshift.errors import printable
from actshift.files import check_writable


def check_outputs(*paths: Path | None, figure: Path | None = None) -> None:
    """Check that each file can be written; raise ActshiftError before time is spent on its content."""
    for path in filter(None, paths):
        check_writable(path)
    if figure is not None:
        from actshift.analysis.figures import check_figure

        check_figure(figure)


NARROWEST = 40  # columns of a table


class PlainConsole(Console):
    """A console that interprets no markup and escapes control characters."""

    def __init__(self, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)
        if self.width < NARROWEST:  # COLUMNS=0 would print nothing
            self.width = NARROWEST

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Return the segments of a renderable."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))


def echo(text: str = "", err: bool = False, nl: bool = True) -> None:
    """Print a text, with control characters as escapes."""
    typer.echo(printable(text), err=err, nl=nl)


def to_json(values: Any, indent: int | None = None) -> str:
    r"""Return values as JSON, and escape also the control characters that JSON allows.

    >>> print(to_json("é\x7f"))
    "é\u007f"
    """
    text = json.dumps(values, indent=indent, ensure_ascii=False)
    return re.sub(r"[^\n\x20-\x7e\xa0-\U0010ffff]|[\u2028-\u202e\u2066-\u2069\ud800-\udfff]", _json_escape, text)


def _json_escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def print_json(values: Any, indent: int | None = None) -> None:
    """Print values as one JSON document on stdout."""
    typer.echo(to_json(values, indent))


def print_facts(facts: Mapping[str, str | None]) -> None:
    """Print one line per fact that is not empty: its name, padded, and its text without wrapping."""
    for name, fact in facts.items():
        if fact:
            echo(f"{name:<12}{fact}")


def print_tables(*tables: Any) -> None:
    """Print tables, reports or lines of text below each other, without highlighting."""
    PlainConsole().print(*tables, sep="\n")


def print_report(report: Any, as_json: bool, figure: Path | None = None) -> None:
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


def host_range(hosts: Sequence[str]) -> str:
    """Abbreviate hosts that differ in one number.

    >>> host_range(["layers.0.mlp", "layers.1.mlp", "layers.2.mlp"])
    'layers.0…2.mlp'
    """
    first, last = hosts[0].split("."), hosts[-1].split(".")
    if len(first) != len(last) or sum(map(str.__ne__, first, last)) > 1:  # an encoder and a decoder
        return ", ".join(hosts)
    return ".".join(a if a == b else f"{a}…{b}" for a, b in zip(first, last, strict=True))


@contextmanager
def progress_bar() -> Generator[Callable[..., None], None, None]:
    """Yield a function of a phase, its steps done and their total, which shows a bar per phase on a terminal."""
    console = PlainConsole(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bars: dict[str, TaskID] = {}

        def update(phase: str, done: int, total: int) -> None:
            if phase not in bars:
                bars[phase] = progress.add_task(phase, total=total)
            progress.update(bars[phase], completed=done)

        yield update
