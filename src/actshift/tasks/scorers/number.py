"""The final number of a text, as it is written in word problems."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Context, Decimal
from fractions import Fraction

from actshift.errors import ActshiftError
from actshift.tasks.scorers.mention import FILLER, Mention, asserted, marked
from actshift.tasks.scorers.scorer import Row, Scorer, gold_of

CUT_DECIMALS = 5
"""A gold number with so many decimals was cut off; one with fewer is exact."""
LEAST_DECIMALS = 4
"""What a prediction must give of a number that was cut off."""

_TOKEN = re.compile(r"-?\\[dt]?frac\{[^{}]*\}\{[^{}]*\}|(?:[^\s=<>()\[\]{}|\\#:;\"“”`—≈~]|(?<=[0-9]):(?=[0-9]))+")
_UNIT = r"%|°[CF]?|[€£¢]|USD|dollars?|cents?|[ckm]?m[²³]?|k?g|mg|m?[lL]|hrs?|h|mins?|s|secs?|mph|kph|ft|in|lbs?|oz"
_NUMBER = re.compile(
    r"[-+]?(?:(?:US)?[$€£¥₹]|USD|Rs\.?)?[-+]?"
    r"(?P<digits>(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+|0|[1-9][0-9]*)(?:\.[0-9]+)?|\.[0-9]+)"
    rf"(?P<below>/[1-9][0-9]*)?(?:{_UNIT})?(?:/[a-z]+)?"
)
_SCALE = re.compile(r"\s+(hundred|thousand|million|billion|trillion)\b", re.IGNORECASE)
_POWER = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_JOIN = re.compile(r"\s*(?:[-+*×÷/·^–]|\b(?:x|or|to|and)\b)\s*", re.IGNORECASE)
_DETACHED_SIGN = re.compile(r"[-–]\s+$")
_EQUATION = re.compile(rf"(?:(?:[^=\nA-Za-z]|\b[A-Za-z]\b){{1,60}}=)*{FILLER.pattern}", re.IGNORECASE)
"""`the answer is 6 * 7 = 42` announces 42."""


def _extract(prediction: str, row: Row) -> str | None:
    text = prediction.replace("−", "-")
    mentions = asserted(text, _mentions(text))
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
    if _decimals(b) < CUT_DECIMALS or _decimals(a) < LEAST_DECIMALS:
        return False
    rounding = Context(prec=min(len(a.as_tuple().digits), len(b.as_tuple().digits)))
    return rounding.plus(a) == rounding.plus(b)


def _mentions(text: str) -> list[Mention]:
    """Return the numbers of a text; those that are only a part of something, or malformed, without a value."""
    found: list[Mention] = []
    for mention in _tokens(text):
        before = found[-1] if found else None
        gap = text[before.end : mention.start] if before else ""
        if before and before.value and gap.isspace() and before.value.isdigit() and "/" in (mention.value or ""):
            found[-1] = Mention(before.start, mention.end, str(Fraction(before.value) + Fraction(str(mention.value))))
            continue
        if before and _JOIN.fullmatch(gap):  # 3 + 4, 3 or 4: neither is the answer
            found[-1], mention = before._replace(value=None), mention._replace(value=None)
        elif _DETACHED_SIGN.search(text, 0, mention.start):
            mention = mention._replace(value=None)
        found.append(mention)
    return found


def _tokens(text: str) -> Iterator[Mention]:
    for token in _TOKEN.finditer(text):
        whole = token[0]
        written = re.sub(r"\\[dt]?frac\{(.*)\}\{(.*)\}", r"\1/\2", whole).lstrip("*_'").rstrip(".,!?*_'$")
        number = _NUMBER.fullmatch(written)
        if number is None:
            if re.search("[0-9]", written) and not re.search("[A-Za-z]", written):
                yield Mention(token.start(), token.end(), None)  # 1,23 or 10-4 or 3:45
            continue  # a word with a digit in it, such as 42nd or COVID-19, is no number
        end = token.end() - len(whole) + len(whole.rstrip(".,!?*_'$"))
        value = _canonical(number)
        scale = _SCALE.match(text, end)
        if scale and not number["below"]:
            value, end = _plain(Decimal(value).scaleb(_POWER[scale[1].lower()])), scale.end()
        yield Mention(token.start(), end, value)


def _canonical(number: re.Match[str]) -> str:
    sign = "-" if "-" in number[0][: number.start("digits")] else ""
    value = _plain(Decimal(number["digits"].replace(",", "")))
    return sign * (value != "0") + value + (number["below"] or "")


def _plain(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _decimal(value: str) -> Decimal:
    above, _, below = value.partition("/")
    return Decimal(above) / Decimal(below) if below else Decimal(above)


def _decimals(number: Decimal) -> int:
    return -int(number.as_tuple().exponent)


NUMBER = Scorer("number", _correct, _extract)
