"""The list of suites, and the command line of the benchmarks."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.bars import BARS
from benchmarks.suites import TITLES, suite


@pytest.mark.parametrize("name", TITLES)
def test_every_title_has_a_suite_with_a_docstring(name):
    module = suite(name)
    assert module.__doc__, "the page shows the docstring"
    assert list(inspect.signature(module.measure).parameters) == ["quick"]


def test_every_bar_belongs_to_a_suite():
    assert {bar.suite for bar in BARS} <= set(TITLES)


def run(*arguments) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)


@pytest.mark.slow
def test_running_two_suites_writes_the_page_and_keeps_other_figures(tmp_path):
    command = ("--quick", "--out", str(tmp_path))
    first = run(*command, "--only", "training", "--only", "startup")
    assert first.returncode == 0, first.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results["suites"]) == ["training", "startup"]
    assert all(figure["value"] > 0 for part in results["suites"].values() for figure in part["figures"])
    page = (tmp_path / "RESULTS.md").read_text()
    assert "## A training step" in page and "## Start-up" in page and "not measured" in page
    assert run(*command, "--only", "startup").returncode == 0
    again = json.loads((tmp_path / "results.json").read_text())["suites"]
    assert again["training"] == results["suites"]["training"], "a suite that does not run keeps its figures"
    assert again["startup"] != results["suites"]["startup"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("--only", "trainin"), "(did you mean 'training'?)"), (("--quick",), "Give --out a folder")],
)
def test_invalid_arguments_are_an_error_of_one_line(arguments, message):
    ran = run(*arguments)
    assert ran.returncode == 2
    (line,) = ran.stderr.splitlines()
    assert message in line
