"""Find the numbers of a text, as word problems and their answers write them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction

from actshift.tasks.scorers.mention import Mention

_TOKEN = re.compile(r"-?\\[dt]?frac\{[^{}]*\}\{[^{}]*\}|(?:[^\s=<>()\[\]{}|\\#:;\"“”`—≈~]|(?<=[0-9]):(?=[0-9]))+")
_FRACTION = re.compile(r"(-?)\\[dt]?frac\{(.*)\}\{(.*)\}")
_UNIT = r"%|°[CF]?|[€£¢]|USD|dollars?|cents?|[ckm]?m[²³]?|k?g|mg|m?[lL]|hrs?|h|mins?|s|secs?|mph|kph|ft|in|lbs?|oz"
_NUMBER = re.compile(
    r"[-+]?(?:(?:US)?[$€£¥₹]|USD|Rs\.?)?[-+]?"
    r"(?P<digits>(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+|0|[1-9][0-9]*)(?:\.[0-9]+)?|\.[0-9]+)"
    rf"(?P<below>/[1-9][0-9]*)?(?:{_UNIT})?(?:/[a-z]+)?"
)
_ENDING = ".,!?*_'$"
_SCALE = re.compile(r"\s+(hundred|thousand|million|billion|trillion)\b", re.IGNORECASE)
_POWER = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_JOIN = re.compile(r"\s*(?:[-+*×÷/·^–]|\b(?:x|or|to|and)\b)\s*", re.IGNORECASE)
_DETACHED_SIGN = re.compile(r"[-–]\s+$")


def find_numbers(text: str) -> list[Mention]:
    """Return the numbers of `text` in canonical form: `1080.5` or `5/6`; a minus is the hyphen.

    What is malformed (`1,23`, `10-4`, `3:45`), joined to another number (`3 + 4`, `3 or 4`), or parted from its sign
    is there without a value. A word with a digit in it (`42nd`, `COVID-19`) is no number.

    >>> [mention.value for mention in find_numbers("$1,080.50 for the 3rd of 1 1/2 kg, or 10-4")]
    ['1080.5', '3/2', None]
    """
    found: list[Mention] = []
    for mention in _tokens(text):
        before = found[-1] if found else None
        gap = text[before.end if before else 0 : mention.start]
        if before and gap.isspace() and (mixed := _mixed(before.value, mention.value)):
            found[-1] = Mention(before.start, mention.end, mixed)
            continue
        if before and _JOIN.fullmatch(gap):
            found[-1], mention = before._replace(value=None), mention._replace(value=None)
        elif _DETACHED_SIGN.search(gap):
            mention = mention._replace(value=None)
        found.append(mention)
    return found


def _tokens(text: str) -> Iterator[Mention]:
    for token in _TOKEN.finditer(text):
        whole = token[0]
        if not any(digit in whole for digit in "0123456789"):
            continue
        number = _NUMBER.fullmatch(_FRACTION.sub(r"\1\2/\3", whole).lstrip("*_'").rstrip(_ENDING))
        if number is None:
            if not re.search("[A-Za-z]", whole):
                yield Mention(token.start(), token.end(), None)
            continue
        value, end = _canonical(number), token.end() - len(whole) + len(whole.rstrip(_ENDING))
        scale = _SCALE.match(text, end)
        if scale and not number["below"]:
            value, end = _plain(Decimal(value).scaleb(_POWER[scale[1].lower()])), scale.end()
        yield Mention(token.start(), end, value)


def _mixed(whole: str | None, part: str | None) -> str | None:
    """Return `3/2` for `1` and `1/2`, and None where the two are no mixed number."""
    if not (whole and part) or "/" not in part or part.startswith("-") or not whole.lstrip("-").isdigit():
        return None
    sign = -1 if whole.startswith("-") else 1
    return str(Fraction(whole) + sign * Fraction(part))


def _canonical(number: re.Match[str]) -> str:
    sign = "-" if "-" in number[0][: number.start("digits")] else ""
    value = _plain(Decimal(number["digits"].replace(",", "")))
    return sign * (value != "0") + value + (number["below"] or "")


def _plain(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
