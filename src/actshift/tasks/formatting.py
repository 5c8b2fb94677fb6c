"""What the tasks' files share: lettered choices, numbers as text, and labels by their number."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from actshift.errors import ActshiftError
from actshift.tasks.source import Example

LETTERS = "ABCDEFGHIJ"
DECIMALS = 6
"""Of a number in a completion; more of them say nothing that could be learnt."""


def lettered(question: str, choices: Sequence[str], answer: int) -> Example:
    """Return an example that lists `choices` by letter under `question`; `answer` is the index of the right one.

    >>> lettered("Which is a fruit?", ["oak", "pear"], 1)
    Example(prompt='Which is a fruit?\\nA. oak\\nB. pear\\nAnswer:', completion=' B', answer='B', \
choices=('oak', 'pear'), text=None, text_pair=None)
    """
    listed = "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False))
    letter = LETTERS[answer]
    return Example(f"{question}\n{listed}\nAnswer:", f" {letter}", letter, tuple(choices))


def number_text(value: str | float) -> str:
    """Return a number as it is written: no thousands separators, no needless zeros, at most `DECIMALS` decimals.

    >>> [number_text(value) for value in (12.0, "1,080", 1.8333333333333335, -0.5, "34.720", 2400000.0)]
    ['12', '1080', '1.833333', '-0.5', '34.72', '2400000']
    """
    number = round(Decimal(str(value).replace(",", "").strip()), DECIMALS)
    text = f"{number:f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"


def label_name(labels: Sequence[str], value: int | str) -> str:
    """Return the name of a label that a source gives by its number or by its name.

    Raises ActshiftError for any other, such as the -1 of rows that have no label.

    >>> label_name(("no", "yes"), 1), label_name(("no", "yes"), "yes")
    ('yes', 'yes')
    """
    if value in labels:
        return str(value)
    if isinstance(value, int) and 0 <= value < len(labels):
        return labels[value]
    raise ActshiftError(f"has the label {value!r}; it must be one of {', '.join(labels)}")
