"""The page: one HTML file that needs nothing else, and no network."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from actshift.analysis.report.section import Section
from actshift.analysis.report.svg import inline

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<link rel="icon" href="data:,"/>
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<header>
<h1>{title}</h1>
<dl>{about}</dl>
</header>
<nav aria-label="Figures"><ul>{links}</ul></nav>
<main>
{sections}
</main>
<footer>{footer}</footer>
</body>
</html>
"""

SECTION = """<section id="{key}" aria-labelledby="{key}-head">
<h2 id="{key}-head">{title}</h2>
<figure>{svg}</figure>
<div class="words"><p><b>How to read it</b> {reading}</p><p><b>What to do</b> {advice}</p>{note}</div>
<details><summary>The same as a table</summary>
<div class="scroll" tabindex="0" role="region" aria-label="Table: {title}"><table>
<thead><tr>{head}</tr></thead>
<tbody>
{rows}
</tbody>
</table></div></details>
</section>"""


def page(title: str, about: Mapping[str, str], sections: Sequence[Section], made: Mapping[str, str]) -> str:
    """Return the page; it is well-formed XML, too. `about` and `made` are told above and below the sections."""
    return PAGE.format(
        title=escape(title),
        style=Path(__file__).with_name("page.css").read_text(encoding="utf-8"),
        about="".join(f"<dt>{escape(name)}</dt><dd>{escape(fact)}</dd>" for name, fact in about.items()),
        links="".join(f'<li><a href="#{one.key}">{escape(one.title)}</a></li>' for one in sections),
        sections="\n".join(map(_section, sections)),
        footer="<br/>".join(f"{escape(name)}: {escape(fact)}" for name, fact in made.items()),
    )


def _section(one: Section) -> str:
    return SECTION.format(
        key=one.key,
        title=escape(one.title),
        svg=inline(one.draw(), one.key, one.title, one.alt),
        reading=_marked(one.reading),
        advice=_marked(one.advice),
        note=f'<p class="note">{_marked(one.note)}</p>' if one.note else "",
        head="".join(f'<th scope="col">{escape(name)}</th>' for name in one.columns),
        rows="\n".join(map(_row, one.rows)),
    )


def _marked(text: str) -> str:
    """Escape a text, hold numbers and their signs together, and set what stands in `backticks` as code."""
    text = re.sub(r" (?=[%±])|(?<=±) ", "\u00a0", text)
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text))


def _row(cells: Sequence[str]) -> str:
    first, *rest = map(escape, cells)
    return f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>'
