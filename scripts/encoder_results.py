"""Compare the methods on an encoder: ``python scripts/encoder_results.py --model M --rows R --out DIR``.

R is the folder that encoder_rows.py wrote. The methods are in encoder_methods.yaml and encoder_mnli_methods.yaml. DIR
keeps the comparisons, and the same command resumes them; --jobs N runs N cells at the same time. To measure peak
memory, each method of SST-2 then trains for a few steps in a separate process. encoder_head.py measures the head
alone, and encoder_norms.py measures the norms. The script writes encoders.{json,md} and the figures to docs/results.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from encoder_page import norms_table, section

from actshift.compare.cell import Cell
from actshift.compare.compare import compare
from actshift.compare.methods import select_methods
from actshift.compare.page import draw
from actshift.compare.report import CompareReport
from actshift.compare.settings import CompareSettings
from actshift.training import TrainSettings, train

SCRIPTS = Path(__file__).parent
RESULTS = SCRIPTS.parent / "docs" / "results"
METHODS = {"sst2": "encoder_methods.yaml", "mnli": "encoder_mnli_methods.yaml"}
MEASURED_STEPS = 40
ADAPTERS = ("linear", "nonlinear", "vector")
"""Adapters whose shifts are measured in units of the norms."""
MARK = "<!-- scripts/encoder_results.py writes everything below this line -->"


def settings_for(task: str, arguments: argparse.Namespace) -> CompareSettings:
    """Return the settings of the comparison on a task."""
    rows = arguments.rows / task
    return CompareSettings(
        model=arguments.model,
        data=str(rows / "train.jsonl"),
        eval_data=str(rows / "validation.jsonl"),
        test_data=str(rows / "test.jsonl"),
        methods=(str(SCRIPTS / METHODS[task]),),
        seeds=3,
        jobs=arguments.jobs,
        out=str(arguments.out / task),
    )


def without_local_paths(report: CompareReport) -> CompareReport:
    """Return the report without folders of this machine."""
    made = {**report.made, "command": "python scripts/encoder_results.py --model MODEL --rows ROWS --out DIR"}
    return replace(report, protocol={**report.protocol, "model": "MiniLM-L6"}, made=made)


def peak_memory(arguments: argparse.Namespace) -> dict[str, float]:
    """Return, for each method, the peak memory in MB of a process that only trains it."""
    peaks = {}
    for method in select_methods([str(SCRIPTS / METHODS["sst2"])]).methods:
        command = [sys.executable, __file__, "--memory", method.name, "--model", arguments.model]
        command += ["--rows", str(arguments.rows), "--out", str(arguments.out)]
        peaks[method.name] = float(subprocess.check_output(command, text=True).split()[-1])
    return peaks


def print_peak_memory(arguments: argparse.Namespace) -> None:
    """Train a method for a few steps, and print the peak memory of this process in MB."""
    import resource
    import tempfile

    import torch

    torch.set_num_threads(1)
    selection = select_methods([str(SCRIPTS / METHODS["sst2"])])
    method = next(method for method in selection.methods if method.name == arguments.memory)
    common: dict[str, Any] = {**selection.common, "model": arguments.model, "max_steps": MEASURED_STEPS}
    with tempfile.TemporaryDirectory() as folder:
        data = str(arguments.rows / "sst2" / "train.jsonl")
        train(method.cell_settings(method.rates[0], 0, **common, data=data, out=f"{folder}/run"))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)


def norms(report: CompareReport, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the measurements of encoder_norms.py for the first seed of the adapters and for full fine-tuning."""
    full = arguments.out / "full"
    if not full.exists():
        row = next(row for row in report.rows if row.method == "full")
        settings = settings_for("sst2", arguments)
        fixed = {"model": arguments.model, "method": "full", "learning_rate": row.rate, "out": str(full)}
        rows = {"data": settings.data, "eval_data": settings.eval_data}
        train(TrainSettings.from_mapping({**select_methods(settings.methods).common, **fixed, **rows}))
    weights = [
        str(Cell(row.method, row.rate or 0, 0).folder(arguments.out / "sst2") / "weights")
        for row in report.rows
        if row.method in ADAPTERS
    ]
    command = [sys.executable, str(SCRIPTS / "encoder_norms.py"), "--base", arguments.model, "--full", str(full)]
    command += ["--data", str(arguments.rows / "sst2" / "validation.jsonl"), "--adapters", *weights]
    return json.loads(subprocess.check_output(command, text=True))


def head_alone(task: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Return the measurements of encoder_head.py."""
    command = [sys.executable, str(SCRIPTS / "encoder_head.py"), "--base", arguments.model]
    return json.loads(subprocess.check_output([*command, "--rows", str(arguments.rows / task)], text=True))


def write(
    reports: dict[str, CompareReport], heads: dict[str, Any], peaks: dict[str, float], norms: dict[str, Any]
) -> None:
    """Write encoders.json, the figures, and the part of encoders.md below `MARK`; the text above it is kept."""
    results = {task: report.to_dict() for task, report in reports.items()}
    values = {**results, "head_alone": heads, "peak_memory_mb": peaks, "norms": norms}
    (RESULTS / "encoders.json").write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    lines: list[str] = []
    for task, report in reports.items():
        draw(report, RESULTS / f"encoders_{task}.png")
        lines += section(task, report, heads[task], peaks if task == "sst2" else {})
    lines += norms_table(norms)
    path = RESULTS / "encoders.md"
    manual = path.read_text(encoding="utf-8").partition(MARK)[0] if path.exists() else ""
    path.write_text(manual + MARK + "\n\n" + "\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        print_peak_memory(arguments)
        return
    reports = {}
    for task in METHODS:
        report = compare(
            settings_for(task, arguments),
            lambda progress: print(progress.news, flush=True) if progress.news else None,
        )
        reports[task] = without_local_paths(report)
    heads = {task: head_alone(task, arguments) for task in METHODS}
    write(reports, heads, peak_memory(arguments), norms(reports["sst2"], arguments))


if __name__ == "__main__":
    main()
