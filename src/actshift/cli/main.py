"""The entry point: registers the verbs, and turns every failure into one line and exit code 2."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from actshift.cli.chat import chat
from actshift.cli.compare import compare
from actshift.cli.demo import demo
from actshift.cli.equivalence import equivalence
from actshift.cli.errors import quiet_libraries, report
from actshift.cli.eval import evaluate
from actshift.cli.export import export
from actshift.cli.extract import extract
from actshift.cli.generate import generate
from actshift.cli.inspect import inspect
from actshift.cli.locate import locate
from actshift.cli.report import report as show_report
from actshift.cli.tasks import tasks
from actshift.cli.train import train
from actshift.cli.vector import vector

app = typer.Typer(
    name="actshift",
    help="Adapt language models by low-rank steering of the post-block residual stream.",
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.command()(demo)
app.command()(train)
app.command("eval")(evaluate)
app.command()(compare)
app.command()(generate)
app.command()(chat)
app.command()(inspect)
app.command()(tasks)
app.command()(locate)
app.command()(vector)
app.command("report")(show_report)
app.command()(equivalence)
app.command()(extract)
app.command()(export)


def _print_version(wanted: bool) -> None:
    if wanted:
        from actshift import __version__

        typer.echo(f"actshift {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Adapt language models by low-rank steering of the post-block residual stream."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main(argv: Sequence[str] | None = None) -> int:
    """Run `actshift` on `argv`, by default the command line; return 0, or 2 for any failure."""
    quiet_libraries()
    try:
        code = app(None if argv is None else list(argv), prog_name="actshift", standalone_mode=False)
        if code == _INTERRUPTED:
            raise KeyboardInterrupt
        sys.stdout.flush()  # a reader that has gone, or a full disk, is known only now
    except (Exception, KeyboardInterrupt) as error:
        return report(error)
    return code if isinstance(code, int) else 0


_INTERRUPTED = 130
"""What typer returns in place of a KeyboardInterrupt."""
