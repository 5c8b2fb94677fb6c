"""Run the benchmark suites, and write results.json and RESULTS.md."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # silences two log lines of the profiler per step

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from actshift.cli.errors import report
from actshift.errors import ActshiftError, did_you_mean
from actshift.files import write_atomically
from benchmarks.figure import Figure, Note
from benchmarks.machine import conditions, machine
from benchmarks.page import as_json, page
from benchmarks.picture import draw
from benchmarks.suites import TITLES, suite

HERE = Path(__file__).parent
console = Console(stderr=True)


def run(
    only: Annotated[list[str] | None, typer.Option(help=f"Suites to run: {', '.join(TITLES)}.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Use tiny models, to check that everything runs.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for results.json and RESULTS.md.")] = HERE,
    threads: Annotated[int, typer.Option(help="Number of threads of torch.")] = 1,
) -> None:
    """Run the suites on one thread, and write the figures. Suites that do not run keep their figures."""
    for name in only or ():
        if name not in TITLES:
            raise ActshiftError(
                f"There is no suite {name!r}{did_you_mean(name, TITLES)}. Give --only one of {', '.join(TITLES)}."
            )
    if quick and out == HERE:
        raise ActshiftError("The figures of --quick are not meaningful. Give --out a folder without other figures.")
    torch.set_num_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    file = out / "results.json"
    earlier = json.loads(file.read_text())["suites"] if only and file.exists() else {}
    results: dict[str, Any] = {"machine": machine(), "suites": earlier}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        names = only or list(TITLES)
        task = progress.add_task("", total=len(names))
        for name in names:
            progress.update(task, description=TITLES[name])
            results["suites"][name] = {**_run_suite(name, quick), "commit": results["machine"]["commit"]}
            write_atomically(file, json.dumps(results, indent=1) + "\n")
            write_atomically(out / "RESULTS.md", page(results))
            if name == "growth":
                draw([Figure(**figure) for figure in results["suites"][name]["figures"]], out / "growth.png")
            progress.advance(task)


def _run_suite(name: str, quick: bool) -> dict[str, Any]:
    results: list[Figure | Note] = []
    with conditions() as record:
        for result in suite(name).measure(quick):
            results.append(result)
            if isinstance(result, Figure):
                line = f"{result.where} · {result.case} · {result.name}: {result} {result.unit}"
                console.print(line, highlight=False, soft_wrap=True)
    return {**record, **as_json(results)}


if __name__ == "__main__":
    try:
        typer.run(run)
    except ActshiftError as error:
        sys.exit(report(error))
