"""The final number of a text: after `####`, in `the answer is 42`, or else the last.

Numbers are compared exactly: thousands separators, currencies, units and needless zeros apart, `1080.50` is
`$1,080.5`. A gold number with five decimals or more was cut off (`1.8333333333333335`), and a prediction of at least
four decimals is right where both round to the same at the fewer of their digits: `1.8333` is, `1.83` and `1.8334` are
not. A fraction counts where the gold is no whole number, a percentage for the number before its sign.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Context, Decimal
from fractions import Fraction

from actshift.errors import ActshiftError
from actshift.tasks.scorers.base import Row, Scorer, gold_of
from actshift.tasks.scorers.mention import FILLER, Mention, asserted, marked

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


CUT_DECIMALS = 5
"""A gold number with so many decimals was cut off; one with fewer is exact."""
LEAST_DECIMALS = 4
"""What a prediction must give of a number that was cut off."""
FLOAT_DIGITS = 15
"""So many significant digits of a gold number that was a float are true."""

_EQUATION = re.compile(rf"(?:(?:[^=\nA-Za-z]|\b[A-Za-z]\b){{1,60}}=)*{FILLER.pattern}", re.IGNORECASE)
"""`the answer is 6 * 7 = 42` announces 42."""


def _extract(prediction: str, row: Row) -> str | None:
    text = prediction.replace("−", "-")
    mentions = asserted(text, find_numbers(text))
    final = marked(text, mentions, _EQUATION) or (mentions[-1] if mentions else None)
    return final.value if final else None


def _correct(prediction: str, row: Row) -> bool:
    gold = _extract(gold_of(row), row)
    if gold is None:
        raise ActshiftError(f"The scorer number needs an answer that is a number, got {gold_of(row)!r}.")
    found = _extract(prediction, row)
    return found is not None and _same(found, gold)


def _same(found: str, gold: str) -> bool:
    """Tell whether two numbers in canonical form are equal, or the same as far as a gold that was cut off goes."""
    if "/" in found and Fraction(gold).denominator == 1:
        return False  # 84/2 is a sum not done, where the answer is 42
    if Fraction(found) == Fraction(gold):
        return True
    a, b = _decimal(found), _decimal(gold)
    if _decimals(b) < CUT_DECIMALS or _decimals(a) < LEAST_DECIMALS or "/" in gold:
        return False
    rounding = Context(prec=min(FLOAT_DIGITS, len(a.as_tuple().digits), len(b.as_tuple().digits)))
    return rounding.plus(a) == rounding.plus(b)


def _decimal(value: str) -> Decimal:
    above, _, below = value.partition("/")
    return Decimal(above) / Decimal(below) if below else Decimal(above)


def _decimals(number: Decimal) -> int:
    return -int(number.as_tuple().exponent)


NUMBER = Scorer("number", _correct, _extract)
