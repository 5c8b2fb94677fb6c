"""Text with columns of a row in it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from actshift.tasks.example import Row

COLUMN = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Template:
    """Text in which `{column}` stands for that column of a row; no other brace means anything.

    >>> Template("What is {a} + {b}?").fill({"a": 2, "b": 3})
    'What is 2 + 3?'
    """

    text: str

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it names."""
        return tuple(dict.fromkeys(COLUMN.findall(self.text)))

    def fill(self, row: Row) -> str:
        """Return the text for a row; raise KeyError for a column that it lacks."""
        return COLUMN.sub(lambda match: str(row[match[1]]), self.text)
