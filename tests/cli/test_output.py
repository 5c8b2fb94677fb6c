"""What verbs print, and the progress that they show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from actshift import ActshiftError
from actshift.analysis.figures import panels, save_figure
from actshift.cli.output import check_outputs, number_columns, print_facts, print_json, print_report, progress_bar


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


def test_a_figure_must_have_a_format_and_a_stream_receives_png(tmp_path: Path, capfdbinary) -> None:
    check_outputs(figure=tmp_path / "figure.SVG")
    check_outputs(figure=Path("/dev/stdout"))
    for name in ("figure", "figure.xyz", "figure.json"):
        with pytest.raises(ActshiftError, match=r"cannot be saved as figure.*End the name in \.png, \.svg or \.pdf"):
            check_outputs(figure=tmp_path / name)
    with pytest.raises(ActshiftError, match="There is no folder"):
        check_outputs(figure=tmp_path / "missing" / "figure.png")
    figure = panels(1, 1, lambda axes: None)
    for path in (tmp_path / "figure.SVG", Path("/dev/stdout")):
        save_figure(figure, path)
    assert [path.name for path in tmp_path.iterdir()] == ["figure.SVG"]
    assert (tmp_path / "figure.SVG").read_bytes().startswith(b"<?xml")
    assert capfdbinary.readouterr().out.startswith(b"\x89PNG")


def test_the_figure_is_saved_before_the_report_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Report:
        def to_dict(self) -> dict[str, int]:
            raise BrokenPipeError

        def figure(self) -> Any:
            return panels(1, 1, lambda axes: None)

    with pytest.raises(BrokenPipeError):
        print_report(Report(), as_json=True, figure=tmp_path / "figure.png")
    assert (tmp_path / "figure.png").is_file()
