"""Command-line entry point: list the verbs, import the one that is run, and report failures in one line."""

import signal
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from io import TextIOWrapper
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Column, Table
from typer.core import TyperCommand, TyperGroup

from actshift.cli.errors import hide_library_warnings, open_closed_streams, report
from actshift.errors import ActshiftError

VERBS = {
    "demo": ("demo", "Teach a small bundled model a new answer format, by steering and by full fine-tuning."),
    "train": ("train", "Adapt a model to your data by steering, LoRA, both together, or full fine-tuning."),
    "eval": ("evaluate", "Measure the accuracy of greedy completions on rows, on a task, or on lm-eval tasks."),
    "compare": ("compare", "Compare methods: choose each learning rate on validation rows, then test several seeds."),
    "generate": ("generate", "Complete prompts with a model and adapters, side by side if requested."),
    "chat": ("chat", "Chat with a model, and switch its adapter on and off during the conversation."),
    "inspect": ("inspect", "Show the contents of an adapter, or the sites of a model with their cost in parameters."),
    "tasks": ("tasks", "List the tasks with their splits, scorers and settings, or show one with an example."),
    "locate": ("locate", "Find the sites, layers and ranks at which a small change reduces a task's loss most."),
    "vector": ("vector", "Compute a steering vector from positive and negative texts, without training."),
    "report": ("report", "Write an HTML page about the best places to steer a model, and about an adapter's effect."),
    "equivalence": ("equivalence", "Express a weight update as activation shifts, or a linear adapter as an update."),
    "extract": ("extract", "Convert a fine-tuned model into a small linear adapter of its base, in closed form."),
    "export": ("export", "Merge an adapter into its model's weights, or save one half of a joint adapter."),
}
"""Each verb, which is a module of this package, with the name of its function and its one-line help."""


class LazyGroup(TyperGroup):
    """A command group that lists its verbs from `VERBS` and imports a verb's module only to run it.

    Importing every verb takes several times as long as importing typer, because flags are generated from the settings
    of `train` and `compare`.
    """

    def __init__(self, **attrs: Any) -> None:
        super().__init__(**attrs)
        self.commands.update((name, TyperCommand(name)) for name in VERBS)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the verb's name, its command with all options, and the remaining arguments."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, load_verb(name) if name else None, rest

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help in typer's style, without `typer.rich_utils`: its import takes longer than all the rest."""
        console = Console(highlight=False)
        console.print(f"\n {escape(self.get_usage(ctx))}\n\n {self.help}\n")
        options = [record for option in self.get_params(ctx) if (record := option.get_help_record(ctx))]
        for title, rows in (("Options", options), ("Commands", [(name, line) for name, (_, line) in VERBS.items()])):
            names = Column(style="bold cyan", no_wrap=True, width=max(map(len, VERBS)))
            table = Table.grid(names, "", padding=(0, 2, 0, 0), expand=True)
            for row in rows:
                table.add_row(*row)
            console.print(Panel(table, title=title, title_align="left", border_style="dim"))


class VerbCommand(TyperCommand):
    """A command that refuses a repeated flag, unless it takes several values. Click would use the last one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments of the verb."""
        _, _, order = self.make_parser(ctx).parse_args(list(args))
        for parameter, count in Counter(order).items():
            if count > 1 and parameter.param_type_name == "option" and not parameter.multiple:
                raise ActshiftError(f"{'/'.join(parameter.opts)} is given {count} times; give it once.")
        return super().parse_args(ctx, args)


def load_verb(name: str) -> TyperCommand:
    """Import a verb and return its command.

    >>> [parameter.name for parameter in load_verb("inspect").params]
    ['source', 'as_json', 'revision']
    """
    function = getattr(import_module(f"actshift.cli.{name}"), VERBS[name][0])
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    single.command(name, cls=VerbCommand)(function)
    command = typer.main.get_command(single)
    assert isinstance(command, TyperCommand)
    paragraphs = (command.help or "").split("\n\n")  # typer would keep the line breaks of the docstring
    command.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    return command


app = typer.Typer(name="actshift", cls=LazyGroup, add_completion=False, pretty_exceptions_enable=False)


def _print_version(requested: bool) -> None:
    if requested:
        from actshift import __version__

        typer.echo(f"actshift {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Adapt language models by low-rank steering of the post-block residual stream."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main(argv: Sequence[str] | None = None) -> int:
    """Run `actshift` on `argv` (default: the process's arguments) and return the exit code.

    It is 0, or 2 for a failure, or 1 if the reader of the output closed its pipe.
    """
    open_closed_streams()
    hide_library_warnings()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # characters that the terminal's encoding lacks
    try:
        code = app(None if argv is None else list(argv), prog_name="actshift", standalone_mode=False)
        if code == 130:  # typer returns it instead of raising KeyboardInterrupt
            raise KeyboardInterrupt
        sys.stdout.flush()  # a closed pipe or a full disk raises only here
    except SystemExit as closed_pipe:  # of click and rich
        code = closed_pipe.code
    except (Exception, KeyboardInterrupt) as error:
        if argv is None:  # the process ends now, so a second Ctrl-C need not raise another error
            with suppress(KeyboardInterrupt):  # it may come during this call
                signal.signal(signal.SIGINT, signal.SIG_DFL)
        return report(error)
    return code if isinstance(code, int) else 0
