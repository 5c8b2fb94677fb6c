"""The README's commands set up the project, and its Python snippets run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
TEXT: Any = {"capture_output": True, "text": True}


def test_both_commands_install_the_pinned_dependencies():
    commands = re.findall(r"^python3 -m venv .*", README, re.M)
    assert len(commands) == 2
    for command in commands:
        assert "pip install" in command and "-c constraints.txt" in command
    assert commands[0].endswith("actshift demo")
    assert "pytest" in commands[1]


@pytest.mark.slow
def test_the_tutorial_on_a_real_model(tmp_path, smollm2):
    commands = re.findall(r"^actshift .*HuggingFaceTB.*|^actshift generate .*pirate .*", README, re.M)
    assert len(commands) == 2
    output = ""
    for command in commands:
        words = shlex.split(command.replace("HuggingFaceTB/SmolLM2-135M-Instruct", str(smollm2)))
        words = [str(ROOT / word) if word.startswith("examples/") else word for word in words]
        run = "import sys; from actshift.cli.main import main; sys.exit(main())"
        result = subprocess.run([sys.executable, "-c", run, *words[1:]], cwd=tmp_path, **TEXT)
        assert result.returncode == 0, result.stderr
        output = result.stdout
    assert "Paris" in output and "Arr!" in output and "matey" in output


@pytest.mark.slow
def test_python_snippets_run_in_reading_order(tmp_path):
    snippets = re.findall(r"```python\n(.*?)```", README, re.S)
    assert snippets
    for snippet in snippets:  # one process each, as a reader loads the adapter in a new session
        result = subprocess.run([sys.executable, "-c", snippet], cwd=tmp_path, capture_output=True, text=True)
        assert result.returncode == 0, f"{snippet}\n{result.stderr}"
