"""Sections in a terminal."""

from __future__ import annotations

from rich.console import Console

from actshift.analysis.sections import Section, to_terminal
from tests.analysis.example_reports import locate_report


def printed(section: Section, width: int = 60, colours: bool = False) -> str:
    console = Console(
        width=width, highlight=False, force_terminal=colours, color_system="truecolor" if colours else None
    )
    with console.capture() as capture:
        console.print(to_terminal([section]))
    return capture.get()


def section(**fields) -> Section:
    rows = (("0", "1.25", "–"), ("1", "0.5", "[b]2"))
    return Section("key", "Title", "Each row is a block.", ("block", "gain", "error"), rows, **fields)


def test_title_table_and_words_are_printed_without_markup():
    assert printed(section(advice="Start `here`.", note="Two rows.")).splitlines() == [
        "Title",
        "block  gain  error ".rstrip(),
        "0      1.25      –",
        "1       0.5   [b]2",
        "How to read it: Each row is a block.",
        "What to do: Start `here`.",
        "Two rows.",
    ]


def test_a_table_wider_than_the_terminal_is_split_and_loses_no_column():
    lines = printed(section(), width=14).splitlines()
    assert lines[1:7] == ["block  gain", "0      1.25", "1       0.5", "block  error", "0          –", "1       [b]2"]


def test_a_preview_says_how_many_rows_are_hidden():
    assert "… and 1 more." in printed(section(preview=1)) and "0.5" not in printed(section(preview=1))
    assert "more." not in printed(section(preview=2))


def test_shades_colour_the_cells():
    text = printed(section(shades=((1.0, 0.0), (0.4, 0.0))), colours=True)
    assert "\x1b[37;48;2;30;160;215m" in text and "\x1b[30;48;2;255;255;255m" in text


def test_a_report_prints_its_sections_as_plain_text():
    text = str(locate_report())
    assert "\x1b" not in text
    for section in locate_report().sections:
        assert section.title in text and section.rows[0][1] in text and section.advice in " ".join(text.split())
