"""The page: whole, closed in itself, and readable without seeing it."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET

import pytest

from actshift.analysis.render import COLOURS


@pytest.fixture(scope="module")
def page(report) -> str:
    return report.html()


@pytest.fixture(scope="module")
def root(page: str) -> ET.Element:
    return ET.fromstring(page.removeprefix("<!DOCTYPE html>"))


def test_it_is_well_formed_with_a_section_for_each_figure(report, root):
    sections = root.findall("body/main/section")
    assert [one.get("id") for one in sections] == [one.key for one in report.sections]
    assert root.get("lang") == "en" and root.findtext("head/title") == report.title
    assert "a<b>.jsonl" in "".join(root.itertext())


def test_it_needs_nothing_else(page, root):
    assert not re.search(r"https?:|//|@import|<script", page)
    for one in root.iter():
        for name in ("src", "href"):
            assert one.get(name, "#").startswith(("#", "data:")), one.attrib
    assert set(re.findall(r"url\(([^)]*)\)", page)) <= {f"#{one.get('id')}" for one in root.iter()}


def test_names_are_its_own_and_lead_somewhere(root):
    names = [one.get("id") for one in root.iter() if one.get("id")]
    assert len(names) == len(set(names))
    for one in root.iter():
        named = (one.get("aria-labelledby") or "").split()
        linked = [one.get("href", "")[1:]] if one.get("href", "").startswith("#") else []
        assert {*named, *linked} <= set(names), one.attrib


def test_figures_are_told_in_words_and_tables(report, root):
    for one, section in zip(report.sections, root.findall("body/main/section"), strict=True):
        svg = section.find("figure/svg")
        assert svg is not None and svg.get("role") == "img"
        assert (svg.findtext("title"), svg.findtext("desc")) == (one.title, one.alt)
        table = section.find("details/div/table")
        assert table is not None and len(table.findall("tbody/tr")) == len(one.rows)
        assert all(head.get("scope") for head in table.iter("th"))
        said = "".join("".join(part.itertext()) for part in section.findall("div/p")).replace("\xa0", " ")
        assert one.reading in said and one.advice.replace("`", "") in said and one.note in said


def test_colours_and_fonts_are_the_pages(root):
    drawn = [ET.tostring(svg, encoding="unicode") for svg in root.iter("svg")]
    for one in drawn:
        assert not any(colour in one for colour in COLOURS) and "DejaVu" not in one
        assert "var(--ink)" in one and "<metadata" not in one
    assert "<text" in drawn[0] and "var(--post-block)" in drawn[0]
    style = root.findtext("head/style") or ""
    for variable in COLOURS.values():
        assert style.count(f"--{variable}:") == 2  # light and dark


def test_it_says_the_same_twice(report, page):
    assert report.html() == page


def test_it_is_written_with_its_figures(report, page, tmp_path):
    report.write(tmp_path / "report.html", tmp_path / "figures")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == page
    expected = {f"{one.key}.{kind}" for one in report.sections for kind in ("png", "svg")}
    assert {path.name for path in (tmp_path / "figures").iterdir()} == expected
    assert (tmp_path / "figures" / "where.png").read_bytes().startswith(b"\x89PNG")
    ET.parse(tmp_path / "figures" / "where.svg")


def test_json_holds_words_and_figures(report):
    values = json.loads(json.dumps(report.to_dict()))
    assert [one["key"] for one in values["sections"]] == [one.key for one in report.sections]
    assert values["locate"]["places"] and values["equivalence"]["layers"][0]["mlp"]["slope"] == pytest.approx(2)
    assert values["oracle"]["ranks"] == [1, 2, 4] and values["redundancy"]["tokens"] == 100
