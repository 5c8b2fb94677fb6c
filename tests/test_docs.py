"""References between the code and the documentation resolve."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
METHOD = (ROOT / "docs" / "method.md").read_text("utf-8")
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "src").rglob("*.md"), *ROOT.glob("benchmarks/*.md")]
)


def anchors_of(page: str) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page, flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def docstrings() -> list[tuple[str, str]]:
    """Return every docstring of the package with the place where it stands."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return [
        (f"{path.relative_to(ROOT)}:{getattr(node, 'name', 'module')}", text)
        for path in sorted((ROOT / "src").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, kinds) and (text := ast.get_docstring(node))
    ]


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(actshift\.[\w.]+)`", METHOD))))
def test_the_method_page_names_code_that_exists(name: str) -> None:
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: Any = import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[end:]:
            found = getattr(found, attribute)
        return
    pytest.fail(f"{name} does not exist")


def test_every_anchor_that_the_code_cites_is_a_heading() -> None:
    cited = {
        (place, page, anchor)
        for place, text in docstrings()
        for page, anchor in re.findall(r"(docs/[\w/]+\.md)(?:#([\w-]+))?", text)
    }
    assert any(anchor for _, _, anchor in cited)
    for place, page, anchor in cited:
        assert (ROOT / page).is_file(), f"{place} cites {page}, which does not exist"
        assert not anchor or anchor in anchors_of((ROOT / page).read_text("utf-8")), f"{place}: no #{anchor} in {page}"


def test_every_source_can_be_looked_up() -> None:
    for place, text in docstrings():
        for source in re.findall(r"Source: ((?:.|\n)+?)(?:\n\s*\n|\Z)", text):
            resolves = re.search(
                r"arXiv \d{4}\.\d{5}|docs/[\w/]+\.md|https?://|\b(?:19|20)\d\d\b|arXiv:\d{4}\.\d{5}", source
            )
            assert resolves, f"{place} cites a source that cannot be looked up: {source}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_resolve(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        file, _, anchor = target.partition("#")
        linked = (page.parent / file) if file else page
        assert linked.exists(), f"{page.relative_to(ROOT)} links to {target}, which does not exist"
        assert not anchor or anchor in anchors_of(linked.read_text("utf-8")), f"{target} names no heading"


def test_every_promise_names_a_test_that_exists() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text("utf-8")
    promises = re.findall(r"^- (.+(?:\n  .+)*)", page, re.M)
    assert promises
    for promise in promises:
        tests = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", promise)
        assert tests, f"this promise names no test: {promise}"
        for file, name in tests:
            assert re.search(rf"def {name}\b", (ROOT / file).read_text("utf-8")), f"{file} has no test {name}"
