"""`actshift demo`: the main job on a bundled model, offline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from actshift.cli.steered import AsJson
from actshift.demo.methods import DEFAULT, METHODS, check_methods

if TYPE_CHECKING:
    from rich.table import Table

    from actshift.demo.run import DemoReport


def demo(
    methods: Annotated[
        str, typer.Option("--methods", help=f"What to compare, with commas between: {', '.join(METHODS)}.")
    ] = ",".join(DEFAULT),
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of rows, their order and first weights.")] = 0,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Training steps of each method.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="New folder for the adapters; a temporary one if left out.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Teach a small bundled model a new form of answer: by steering, and by full fine-tuning beside it.

    Needs no network. The model can work out what the questions ask, in the form it was pretrained on; the form in
    which the answer is wanted here is one it has never seen.
    """
    import json
    import tempfile

    from rich.console import Console

    from actshift.errors import require
    from actshift.files import check_new_folder

    names = [name.strip() for name in methods.split(",")]
    check_methods(names)
    require("trl", "train")
    folder = out or Path(tempfile.mkdtemp(prefix="actshift-demo-"), "adapters")
    check_new_folder(folder)
    notes = Console(stderr=True, highlight=False)
    notes.print("• Loading the libraries.")

    from actshift.demo.run import STEPS, run_demo

    report = run_demo(names, folder, seed, steps or STEPS, say=lambda line: notes.print(f"• {line}"))
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2, ensure_ascii=False))
    else:
        _show(report)


def _show(report: DemoReport) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    console.print(_methods(report), _examples(report))
    if report.reloaded_accuracy is not None:
        console.print(f"Saved in {report.adapter}", markup=False, soft_wrap=True)
        console.print(f"and loaded into a fresh model: {_compared(report)}.")
        console.print(
            f"Try it: actshift generate --adapter {report.adapter} --compare --prompt {report.examples[0].prompt!r}",
            markup=False,
            soft_wrap=True,
        )
    console.print(f"{report.seconds:.0f} s in all, seed {report.seed}.")


def _compared(report: DemoReport) -> str:
    trained = next(row.accuracy for row in report.rows if METHODS[row.method].site)
    after = report.reloaded_accuracy
    if trained == after:
        return f"{after:.1%} again, the same accuracy"
    return f"{after:.1%}, which is NOT the {trained:.1%} from before"


def _methods(report: DemoReport) -> Table:
    from rich.table import Column, Table

    table = Table(
        Column("method", no_wrap=True),
        *(Column(name, justify="right") for name in ("trainable", "share", "before", "after", "training", "size")),
        title=f"Right answers to {report.test_rows:,} unseen questions",
        title_justify="left",
    )
    for row in report.rows:
        table.add_row(
            row.label,
            f"{row.trainable:,}",
            f"{row.trainable_share:.2%}",
            f"{row.base_accuracy:.1%}",
            f"[bold]{row.accuracy:.1%}[/bold]",
            f"{row.seconds:.0f} s",
            f"{row.size / 1e3:,.0f} kB",
        )
    return table


def _examples(report: DemoReport) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table("prompt", "before", "after", title="Answers", title_justify="left", show_lines=True)
    for example in report.examples:
        right = example.after.strip() == example.reference.strip()
        after = escape(example.after.strip()) + (" ✓" if right else f" ✗ ({escape(example.reference.strip())})")
        table.add_row(escape(example.prompt), escape(example.before.strip()), after)
    return table
