"""Tasks and scorers are found in the modules of their packages, and importing the package stays cheap."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from actshift.tasks import Scorer, Task, get_task, task_names
from actshift.tasks.scorers import instances_in

PLUGIN = """
from actshift.tasks.scorers.base import answer_scorer

FIRST = answer_scorer("first", lambda prediction, row: prediction[:1])
LAST = answer_scorer("last", lambda prediction, row: prediction[-1:])
"""


def test_a_new_module_of_a_package_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "extra_scorers").mkdir()
    (tmp_path / "extra_scorers" / "__init__.py").touch()
    (tmp_path / "extra_scorers" / "ends.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    assert [scorer.name for scorer in instances_in("extra_scorers", Scorer)] == ["first", "last"]


def test_every_task_of_the_benchmarks_is_registered_once() -> None:
    tasks = instances_in("actshift.tasks.benchmarks", Task)
    assert tuple(sorted(task.name for task in tasks)) == task_names()
    assert all(get_task(task.name) is task and task.description and task.sample for task in tasks)


def test_importing_the_package_imports_no_heavy_library() -> None:
    heavy = ("torch", "datasets", "transformers", "yaml", "numpy")
    code = f"import sys, actshift.tasks; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
