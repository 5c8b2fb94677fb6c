"""What verbs print, and the progress that they show."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from actshift import ActshiftError
from actshift.cli.output import check_outputs, number_columns, print_facts, print_json, progress_bar


def test_json_keeps_letters_of_every_alphabet(capsys) -> None:
    print_json({"model": "ß"})
    assert capsys.readouterr().out == '{"model": "ß"}\n'
    print_json([1], indent=2)
    assert json.loads(capsys.readouterr().out) == [1]


def test_facts_are_aligned_and_neither_wrapped_nor_read_as_markup(capsys) -> None:
    print_facts({"name": "[bold]" + "x" * 200, "size": "3"})
    assert capsys.readouterr().out == f"name        [bold]{'x' * 200}\nsize        3\n"


def test_numbers_are_aligned_to_the_right() -> None:
    assert [(column.header, column.justify) for column in number_columns("a", "b")] == [("a", "right"), ("b", "right")]


def test_progress_is_shown_only_on_a_terminal(capsys, monkeypatch) -> None:
    for forced in ("", "1"):
        monkeypatch.setenv("FORCE_COLOR", forced)
        with progress_bar() as update:
            update("Reading", 0, 2)
            update("Reading", 2, 2)
            update("Fitting", 1, 4)
        out, err = capsys.readouterr()
        assert out == ""
        assert ("Reading" in err and "Fitting" in err) is bool(forced)


def test_every_output_must_be_writable(tmp_path: Path) -> None:
    check_outputs(None, tmp_path / "figure.png")
    with pytest.raises(ActshiftError, match="There is no folder"):
        check_outputs(tmp_path / "figure.png", tmp_path / "missing" / "out.json")
