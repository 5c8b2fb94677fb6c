"""RESULTS.md from results.json: the bars first, then each suite's tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from benchmarks.bars import BARS, Bar
from benchmarks.figure import Figure, Note
from benchmarks.suites import TITLES, suite

Results = Mapping[str, Any]
HEAD = """\
# How fast

Written by `python -m benchmarks`; [how to read it](README.md).

{machine}.
"""


def page(results: Results) -> str:
    """Return the whole page."""
    facts = ", ".join(f"{name} {value}" for name, value in results["machine"].items() if value is not None)
    found = {name: [Figure(**one) for one in part["figures"]] for name, part in results["suites"].items()}
    parts = [HEAD.format(machine=facts), "## The bars\n", table(*bars(found))]
    for name in TITLES:
        if name in found:
            parts += section(name, found[name], results["suites"][name])
    return "\n".join(parts)


def section(name: str, figures: Sequence[Figure], part: Mapping[str, Any]) -> Iterator[str]:
    """Yield a suite's heading, what it says of itself, a table for each place, its notes, and its conditions."""
    yield f"\n## {TITLES[name]}\n"
    yield f"{(suite(name).__doc__ or '').strip()}\n"
    for where in dict.fromkeys(figure.where for figure in figures):
        yield f"**{where}**\n"
        yield table(*pivot([figure for figure in figures if figure.where == where]))
    for note in part["notes"]:
        yield f"{note}\n"
    line = "_{date}, commit {commit}, {seconds} s, load {load[0]} before and {load[1]} after, {share:.0%} of a core_\n"
    yield line.format(**part)


def bars(found: Mapping[str, Sequence[Figure]]) -> tuple[list[str], list[list[str]]]:
    """Return the table of the bars: what was measured, and of each missed one the reason."""
    rows = [row for bar in BARS for row in _bar_rows(bar, bar.figures(found.get(bar.suite, ())))]
    return ["figure", "where", "bar", "measured", ""], rows


def _bar_rows(bar: Bar, figures: Iterable[Figure]) -> Iterator[list[str]]:
    figures = list(figures)
    if not figures:
        yield [bar.text, bar.where, f"≤ {bar.most:g}", "not measured", bar.reason]
    for one in figures:
        verdict = "met" if one.value <= bar.most else ": ".join(filter(None, ("**missed**", bar.reason)))
        yield [bar.text, one.where, f"≤ {bar.most:g}{_unit(one)}", f"{one}{_unit(one)}", verdict]


def pivot(figures: Sequence[Figure]) -> tuple[list[str], list[list[str]]]:
    """Return figures as a table of cases by names."""
    names = {figure.name: figure.unit for figure in figures}
    cases = dict.fromkeys(figure.case for figure in figures)
    cells = {(figure.case, figure.name): str(figure) for figure in figures}
    heads = ["", *(f"{name}, {unit}" if unit != "×" else name for name, unit in names.items())]
    return heads, [[case, *(cells.get((case, name), "") for name in names)] for case in cases]


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def as_json(found: Sequence[Figure | Note]) -> dict[str, Any]:
    """Return a suite's figures and notes, ready for JSON."""
    return {
        "figures": [vars(one) for one in found if isinstance(one, Figure)],
        "notes": [one.text for one in found if isinstance(one, Note)],
    }


def _unit(figure: Figure) -> str:
    return "" if figure.unit == "×" else f" {figure.unit}"
