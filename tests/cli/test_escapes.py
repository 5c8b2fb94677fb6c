"""Names and text from files and models reach no terminal, page or JSON with control characters or markup."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from actshift import ActshiftError, SteeringConfig, attach
from actshift.analysis.contrast.contrast import card
from actshift.analysis.contrast.report import ContrastReport, LayerContrast
from actshift.analysis.figures import figure_text, new_figure
from actshift.analysis.html import to_html
from actshift.cli.errors import report
from actshift.cli.output import PlainConsole, echo, print_facts, print_json, print_tables
from actshift.errors import printable
from actshift.markdown import markdown_block, markdown_code, markdown_text
from tests.cli.conftest import PAIRS, Run
from tests.tiny import save_model

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.exe\u2066\x7f\r\x08[bold]x[/nope] :smile: <script>alert(1)</script>"
RAW = "\x1b\x07\x9b\u202e\u2066\x7f\x08"


def assert_clean(text: str) -> None:
    assert not [character for character in RAW if character in text], text


def test_printable_keeps_text_of_every_script() -> None:
    for text in ("tab\there\nand\r\n", "שלום\u200f!", "👩\u200d💻 🏴", "日本語", "naïve — “x”", "\u00a0"):
        assert printable(text) == text
    assert printable("\rx\x00\ud800\u2028") == "\\rx\\x00\\ud800\\u2028"


@pytest.mark.parametrize("text", [EVIL, "\ud800", "[/]", "[link=https://x]y[/link]", ":warning:", "a\nb"])
def test_every_way_to_print_escapes(capsys: pytest.CaptureFixture[str], text: str) -> None:
    from rich.table import Table

    table = Table(text, title=text, caption=text)
    table.add_row(text)
    echo(text)
    print_facts({"name": text})
    print_tables(table, text)
    PlainConsole(stderr=True).print(text)
    report(ActshiftError(text))
    out, err = capsys.readouterr()
    assert_clean(out + err)
    assert printable(text) in out
    print_json({text: text})
    out, _ = capsys.readouterr()
    assert_clean(out)
    assert json.loads(out) == {text: text}


def test_the_line_of_an_error_is_bounded(capsys: pytest.CaptureFixture[str]) -> None:
    report(ActshiftError("x" * 10**6))
    assert len(capsys.readouterr().err) < 2500


@pytest.mark.parametrize("text", [EVIL, "a|b", "`", "``x", "a\n# b", "](javascript:x)", "```\n<b>"])
def test_markdown_has_no_markup_from_names(text: str) -> None:
    for rendered in (markdown_text(text), markdown_code(text)):
        assert_clean(rendered)
        assert "\n" not in rendered
    assert not any(sign in markdown_text(text).replace("\\" + sign, "") for sign in "<>[]|`")
    code = markdown_code(text)
    ticks = code[: len(code) - len(code.lstrip("`"))]
    assert code.endswith(ticks) and ticks not in code.strip("`")
    opening, *_, closing = markdown_block(text).splitlines()
    assert opening == closing and opening not in text


def test_the_page_is_well_formed() -> None:
    import xml.etree.ElementTree as ET

    page = to_html(EVIL, {EVIL: EVIL}, (), {EVIL: EVIL})
    assert_clean(page)
    assert "<script>alert" not in page
    ET.fromstring(page.partition("\n")[2] if page.startswith("<!") else page)


def test_a_figure_shows_dollar_signs_and_escapes(tmp_path: Path) -> None:
    figure = new_figure(2, 2)
    figure.suptitle(figure_text("$\\frac{ $" + EVIL))
    figure.savefig(tmp_path / "a.svg")
    assert_clean((tmp_path / "a.svg").read_text())


def test_the_card_of_a_run_has_no_markup_from_names(
    actshift: Run, write_rows: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    base = save_model(tmp_path / "evil`\n---\nx: <script>|](javascript:y)\x1b[2J")
    rows, out = write_rows(PAIRS), 'o"ut`<b>'
    code, _, err = actshift("train", "--model", base.name, "--data", rows, "--out", out, "--max-steps", 1)
    assert code == 0, err
    text = Path(out, "README.md").read_text()
    assert_clean(text)
    front, body = text.removeprefix("---\n").split("\n---\n", 1)
    assert sorted(yaml.safe_load(front)) == ["library_name", "pipeline_tag", "tags"]
    title = next(line for line in body.splitlines() if line.startswith("# "))
    assert "<script" not in title.replace("\\<", "")
    assert '.from_pretrained("o\\"ut`<b>")' in body


def test_inspect_and_generate_print_no_escapes_of_an_adapter(actshift: Run, model: Path, tmp_path: Path) -> None:
    from actshift.demo import load_base

    attach(load_base()[0], SteeringConfig(rank=1)).save_pretrained(str(tmp_path / "adapter"))
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": EVIL}))
    for words in (("inspect", path.parent), ("inspect", path.parent, "--json"),
                  ("generate", "--adapter", path.parent, "--prompt", "x")):  # fmt: skip
        _, out, err = actshift(*words)
        assert_clean(out + err)
        assert "owned" in out + err


@pytest.mark.parametrize("name", ["\x1b[2J.jsonl", "a\nb.jsonl", "\udcff.jsonl", "\u202ex.jsonl"])
def test_names_of_files_in_errors_are_escaped(
    refused: Callable[..., str], model: Path, tmp_path: Path, name: str
) -> None:
    assert_clean(refused("train", "--model", model, "--data", tmp_path / name, "--out", tmp_path / "o"))
    (tmp_path / os.fsdecode(os.fsencode(name))).write_text('{"prompt": "\x1b"\n')
    assert_clean(refused("train", "--model", model, "--data", tmp_path / name, "--out", tmp_path / "o"))


def test_the_card_of_a_vector_has_no_markup_from_names() -> None:
    contrast = ContrastReport(EVIL, "mean", "last", 2, 2, (LayerContrast(0, 1.0, 1.0, 1.0),))
    text = card(contrast, [1], EVIL, "`\n# x")
    assert_clean(text)
    assert "\n# x" not in text
