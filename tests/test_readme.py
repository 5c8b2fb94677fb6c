"""The README's commands set up the project, and its Python snippets run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_both_commands_install_the_pinned_dependencies():
    commands = re.findall(r"^python3 -m venv .*", README, re.M)
    assert len(commands) == 2
    for command in commands:
        assert "pip install" in command and "-c constraints.txt" in command
    assert commands[0].endswith("actshift demo")
    assert "pytest" in commands[1]


@pytest.mark.slow
def test_python_snippets_run_in_reading_order(tmp_path):
    snippets = re.findall(r"```python\n(.*?)```", README, re.S)
    assert snippets
    for snippet in snippets:  # one process each, as a reader loads the adapter in a new session
        result = subprocess.run([sys.executable, "-c", snippet], cwd=tmp_path, capture_output=True, text=True)
        assert result.returncode == 0, f"{snippet}\n{result.stderr}"
