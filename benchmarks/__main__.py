"""The one command: run the suites, and write results.json and RESULTS.md."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or the profiler says twice a step that it is there

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from actshift.cli.errors import report
from actshift.errors import ActshiftError, did_you_mean
from actshift.files import write_whole
from benchmarks.figure import Figure, Note
from benchmarks.machine import conditions, machine
from benchmarks.page import as_json, page
from benchmarks.picture import draw
from benchmarks.suites import TITLES, suite

HERE = Path(__file__).parent
console = Console(stderr=True)


def run(
    only: Annotated[list[str] | None, typer.Option(help=f"Suites to run again: {', '.join(TITLES)}.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Tiny models: look whether everything runs.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for results.json and RESULTS.md.")] = HERE,
    threads: Annotated[int, typer.Option(help="Threads that torch computes on.")] = 1,
) -> None:
    """Measure everything on one thread, and write the figures; suites left out keep those they had."""
    for name in only or ():
        if name not in TITLES:
            raise ActshiftError(
                f"There is no suite {name!r}{did_you_mean(name, TITLES)}; give --only one of {', '.join(TITLES)}."
            )
    if quick and out == HERE:
        raise ActshiftError("Figures of --quick are of no use; give --out a folder where they replace no others.")
    torch.set_num_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    file = out / "results.json"
    earlier = json.loads(file.read_text())["suites"] if only and file.exists() else {}
    results: dict[str, Any] = {"machine": machine(), "suites": earlier}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        wanted = only or list(TITLES)
        task = progress.add_task("", total=len(wanted))
        for name in wanted:
            progress.update(task, description=TITLES[name])
            results["suites"][name] = {**_measured(name, quick), "commit": results["machine"]["commit"]}
            write_whole(file, json.dumps(results, indent=1) + "\n")
            write_whole(out / "RESULTS.md", page(results))
            if name == "growth":
                draw([Figure(**one) for one in results["suites"][name]["figures"]], out / "growth.png")
            progress.advance(task)


def _measured(name: str, quick: bool) -> dict[str, Any]:
    found: list[Figure | Note] = []
    with conditions() as record:
        for one in suite(name).measure(quick):
            found.append(one)
            if isinstance(one, Figure):
                console.print(
                    f"{one.where} · {one.case} · {one.name}: {one} {one.unit}", highlight=False, soft_wrap=True
                )
    return {**record, **as_json(found)}


if __name__ == "__main__":
    try:
        typer.run(run)
    except ActshiftError as error:
        sys.exit(report(error))
