"""The HTML page is complete, self-contained and accessible."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET

import pytest

from actshift.analysis.html import COLOURS, to_html
from actshift.analysis.sections import Section


@pytest.fixture(scope="module")
def page(full_report) -> str:
    return full_report.html()


@pytest.fixture(scope="module")
def root(page: str) -> ET.Element:
    return ET.fromstring(page.removeprefix("<!DOCTYPE html>"))


def test_the_page_is_well_formed_with_one_element_for_each_section(full_report, root):
    sections = root.findall("body/main/section")
    assert [element.get("id") for element in sections] == [section.key for section in full_report.sections]
    assert root.get("lang") == "en" and root.findtext("head/title") == full_report.title
    assert "a<b>.jsonl" in "".join(root.itertext())


def test_the_page_needs_no_other_file_and_no_network(page, root):
    assert not re.search(r"https?:|//|@import|<script", page)
    for element in root.iter():
        for name in ("src", "href"):
            assert element.get(name, "#").startswith(("#", "data:")), element.attrib
    assert set(re.findall(r"url\(([^)]*)\)", page)) <= {f"#{element.get('id')}" for element in root.iter()}


def test_ids_are_unique_and_every_reference_resolves(root):
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    for element in root.iter():
        labels = (element.get("aria-labelledby") or "").split()
        links = [element.get("href", "")[1:]] if element.get("href", "").startswith("#") else []
        assert {*labels, *links} <= set(ids), element.attrib


def test_every_figure_has_a_description_and_a_table(full_report, root):
    for section, element in zip(full_report.sections, root.findall("body/main/section"), strict=True):
        svg = element.find("figure/svg")
        assert svg is not None and svg.get("role") == "img"
        assert (svg.findtext("title"), svg.findtext("desc")) == (section.title, section.alt)
        table = element.find("details/div/table")
        assert table is not None and len(table.findall("tbody/tr")) == len(section.rows)
        assert all(head.get("scope") for head in table.iter("th"))
        words = "".join("".join(part.itertext()) for part in element.findall("div/p")).replace("\xa0", " ")
        assert section.how_to_read in words and section.advice.replace("`", "") in words and section.note in words


def test_a_section_without_a_figure_or_advice_is_shown_as_a_table():
    section = Section("fits", "Fits", "Each row is a block.", ("block", "R²"), (("0", "0.5"),))
    root = ET.fromstring(to_html("t", {}, [section], {}).removeprefix("<!DOCTYPE html>"))
    assert root.find(".//svg") is None and root.findtext(".//td") == "0.5"
    assert [b.text for b in root.iter("b")] == ["How to read it"]


def test_figures_use_the_colours_and_fonts_of_the_page(root):
    figures = [ET.tostring(svg, encoding="unicode") for svg in root.iter("svg")]
    for svg in figures:
        assert not any(colour in svg for colour in COLOURS) and "DejaVu" not in svg
        assert "var(--ink)" in svg and "<metadata" not in svg
    assert "<text" in figures[0] and "var(--post-block)" in figures[0]
    style = root.findtext("head/style") or ""
    for variable in COLOURS.values():
        assert style.count(f"--{variable}:") == 2  # light and dark


def test_the_page_is_reproducible(full_report, page):
    assert full_report.html() == page


@pytest.mark.slow
def test_the_page_is_written_with_its_figures(full_report, page, tmp_path):
    full_report.write(tmp_path / "report.html", tmp_path / "figures")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == page
    expected = {f"{section.key}.{kind}" for section in full_report.sections for kind in ("png", "svg")}
    assert {path.name for path in (tmp_path / "figures").iterdir()} == expected
    assert (tmp_path / "figures" / "where.png").read_bytes().startswith(b"\x89PNG")
    ET.parse(tmp_path / "figures" / "where.svg")


def test_json_has_the_words_and_the_reports(full_report):
    values = json.loads(json.dumps(full_report.to_dict()))
    assert [section["key"] for section in values["sections"]] == [section.key for section in full_report.sections]
    assert all(
        section.keys() == {"key", "title", "reading", "advice", "note", "alt", "columns", "rows"}
        for section in values["sections"]
    )
    assert values["locate"]["places"] and values["equivalence"]["layers"][0]["mlp"]["slope"] == pytest.approx(2)
    assert values["oracle"]["ranks"] == [1, 2, 4] and values["redundancy"]["tokens"] == 100
