"""Quote text of unknown origin in Markdown."""

import re

from actshift.errors import printable


def markdown_text(text: object) -> str:
    """Return a text as one line of Markdown without markup, also in a table.

    >>> print(markdown_text("<b> a|b"))
    \\<b\\> a\\|b
    """
    return re.sub(r"[\\`<>\[\]|]", r"\\\g<0>", printable(" ".join(str(text).split())))


def markdown_code(text: object) -> str:
    """Return a text as one line of code in Markdown.

    >>> markdown_code("a`b")
    '``a`b``'
    """
    line = printable(" ".join(str(text).split()))
    ticks, space = _ticks(line, 1), " " if line.startswith("`") or line.endswith("`") else ""
    return f"{ticks}{space}{line}{space}{ticks}"


def markdown_block(text: str) -> str:
    """Return a text as a block of code in Markdown."""
    ticks = _ticks(text, 3)
    return f"{ticks}\n{printable(text)}\n{ticks}"


def _ticks(text: str, least: int) -> str:
    return "`" * max([least, *(len(run) + 1 for run in re.findall("`+", text))])
