"""The environment of pyreft."""

from __future__ import annotations

import subprocess

import pytest

from benchmarks.figure import Note
from benchmarks.suites import peers


@pytest.fixture
def needs(tmp_path, monkeypatch):
    files = [tmp_path / "requirements.txt", tmp_path / "pyreft.txt"]
    for file in files:
        file.write_text(f"{file.stem}==1\n")
    monkeypatch.setattr(peers, "NEEDS", files)
    monkeypatch.setattr(peers, "VENV", tmp_path / "venv")
    return files


def test_a_failed_installation_is_one_note(needs, monkeypatch):
    def fail(*command):
        raise subprocess.CalledProcessError(1, command, stderr="looking\nERROR: No matching distribution found\n")

    monkeypatch.setattr(peers, "run", fail)
    (note,) = peers.measure(quick=True)
    assert isinstance(note, Note) and note.text.endswith("failed: ERROR: No matching distribution found")


def test_the_environment_is_created_once_and_again_when_its_pins_change(needs, monkeypatch):
    commands = []

    def run(*command):
        commands.append(command)
        peers.VENV.mkdir(exist_ok=True)
        return ""

    monkeypatch.setattr(peers, "run", run)
    peers.environment()
    count = len(commands)
    peers.environment()
    assert count > 0 and len(commands) == count
    needs[0].write_text("requirements==2\n")
    peers.environment()
    assert len(commands) == 2 * count
