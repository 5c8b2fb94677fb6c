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
def test_every_title_has_its_suite(name):
    module = suite(name)
    assert module.__doc__, "the page has nothing to say of it"
    assert list(inspect.signature(module.measure).parameters) == ["quick"]


def test_every_bar_is_of_a_suite():
    assert {bar.suite for bar in BARS} <= set(TITLES)


def run(*arguments) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)


@pytest.mark.slow
def test_two_suites_as_a_user_runs_them(tmp_path):
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
    assert again["training"] == results["suites"]["training"], "what was left out keeps its figures"
    assert again["startup"] != results["suites"]["startup"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("--only", "trainin"), "(did you mean 'training'?)"), (("--quick",), "give --out a folder")],
)
def test_what_makes_no_sense_is_one_sentence(arguments, said):
    found = run(*arguments)
    assert found.returncode == 2
    (line,) = found.stderr.splitlines()
    assert said in line
