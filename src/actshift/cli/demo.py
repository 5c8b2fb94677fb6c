"""`actshift demo`: the main use on a bundled model, offline."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.table import Column, Table
from rich.text import Text
from typer import Option

from actshift.cli import options
from actshift.cli.output import PlainConsole, echo, number_columns, print_json, print_tables
from actshift.demo import DEFAULT, METHODS, check_methods
from actshift.errors import require
from actshift.files import check_new_folder

if TYPE_CHECKING:
    from actshift.demo.run import DemoReport


def demo(
    methods: Annotated[str, Option(help=f"Methods, separated by commas: {', '.join(METHODS)}.")] = ",".join(DEFAULT),
    seed: Annotated[
        int, Option(min=0, max=options.LARGEST, help="Seed of the rows, their order and the initial weights.")
    ] = 0,
    steps: Annotated[int | None, Option(min=1, max=options.LARGEST, help="Training steps per method.")] = None,
    out: Annotated[Path | None, Option(help="New folder for the adapters. Default: a temporary folder.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Teach a small bundled model a new answer format, by steering and by full fine-tuning.

    No network is needed. The model was pretrained on the same kind of questions, but it has never seen the answer
    format that the demo asks for.
    """
    names = [name.strip() for name in methods.split(",")]
    check_methods(names)
    require("trl", "train")
    folder = out or Path(tempfile.mkdtemp(prefix="actshift-demo-"), "adapters")
    check_new_folder(folder)
    notes = PlainConsole(stderr=True)
    notes.print("• Loading the libraries.")

    from actshift.demo.run import STEPS, run_demo

    report = run_demo(names, folder, seed, steps or STEPS, say=lambda line: notes.print(f"• {line}"))
    if as_json:
        print_json(report.to_dict(), indent=2)
        return
    print_tables(_methods_table(report), _examples_table(report))
    if (reloaded := report.reloaded_accuracy) is not None:
        trained = next(row.accuracy for row in report.rows if METHODS[row.method].site)
        same = trained == reloaded
        verdict = " again, the same accuracy" if same else f", which is NOT the {trained:.1%} from before"
        prompt = report.examples[0].prompt
        echo(f"Saved in {report.adapter}\nand loaded into a fresh model: {reloaded:.1%}{verdict}.")
        echo(f"Try it: actshift generate --adapter {report.adapter} --compare --prompt {prompt!r}")
    echo(f"{report.seconds:.0f} s in all, seed {report.seed}.")


def _methods_table(report: DemoReport) -> Table:
    title = f"Correct answers to {report.test_rows:,} unseen questions"
    columns = (Column("method", no_wrap=True), *number_columns(*"trainable share before after training size".split()))
    table = Table(*columns, title=title, title_justify="left")
    for row in report.rows:
        size = (f"{row.trainable:,}", f"{row.trainable_share:.2%}")
        accuracies = (f"{row.base_accuracy:.1%}", Text(f"{row.accuracy:.1%}", "bold"))
        table.add_row(row.label, *size, *accuracies, f"{row.seconds:.0f} s", f"{row.size / 1e3:,.0f} kB")
    return table


def _examples_table(report: DemoReport) -> Table:
    table = Table("prompt", "before", "after", title="Answers", title_justify="left", show_lines=True)
    for example in report.examples:
        correct = example.after.strip() == example.reference.strip()
        after = example.after.strip() + (" ✓" if correct else f" ✗ ({example.reference.strip()})")
        table.add_row(example.prompt, example.before.strip(), after)
    return table
