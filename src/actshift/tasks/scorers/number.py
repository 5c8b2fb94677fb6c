"""The scorer for numbers: the final number of a text, compared exactly with the gold number.

The final number is the one after `####` or in `the answer is 42`, or else the last. Thousands separators, currencies,
units and trailing zeros do not count: `$1,080.50` equals `1080.5`. A gold number with five or more decimals
(`1.8333333333333335`) is treated as truncated. A prediction of such a number needs at least four decimals, and both
must round to the same value at the number of digits of the shorter one: `1.8333` is right, and `1.83` and `1.8334` are
wrong. A fraction is accepted if the gold number is not an integer. A percentage counts as the number before its sign.
"""

import re
from collections.abc import Iterator
from decimal import Context, Decimal
from fractions import Fraction
from functools import partial

from actshift.data.rows import Row
from actshift.tasks.scorers.base import answer_scorer, extracted_gold
from actshift.tasks.scorers.mention import FILLER, Mention, announced, drop_negated

_TOKEN = re.compile(r"-?\\[dt]?frac\{[^{}]*\}\{[^{}]*\}|(?:[^\s=<>()\[\]{}|\\#:;\"“”`—≈~]|(?<=[0-9]):(?=[0-9]))+")
_FRACTION = re.compile(r"(-?)\\[dt]?frac\{(.*)\}\{(.*)\}")
_UNIT = r"%|°[CF]?|[€£¢]|USD|dollars?|cents?|[ckm]?m[²³]?|k?g|mg|m?[lL]|hrs?|h|mins?|s|secs?|mph|kph|ft|in|lbs?|oz"
_NUMBER = re.compile(
    r"[-+]?(?:(?:US)?[$€£¥₹]|USD|Rs\.?)?[-+]?"
    r"(?P<digits>(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
    rf"(?P<below>/[1-9][0-9]*)?(?:{_UNIT})?(?:/[a-z]+)?"
)
_ENDING = ".,!?*_'$"
_SCALE = re.compile(r"\s+(hundred|thousand|million|billion|trillion)\b", re.IGNORECASE)
_POWER = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_JOIN = re.compile(r"\s*(?:[-+*×÷/·^–]|\b(?:x|or|to|and)\b)\s*", re.IGNORECASE)
_DETACHED_SIGN = re.compile(r"[-–]\s+$")

TRUNCATED_DECIMALS = 5  # a gold number with so many decimals is treated as truncated
MIN_DECIMALS = 4  # needed in a prediction of a truncated number
MAX_DIGITS = 4000  # longer numbers, which Python does not convert to integers, are equal only if they are identical
FLOAT_DIGITS = 15  # significant digits that are exact in a gold number from a float
_EQUATION = re.compile(rf"(?:(?:[^=\nA-Za-z]|\b[A-Za-z]\b){{1,60}}=)*{FILLER.pattern}", re.IGNORECASE)
"""Text between an announcement and its number. `the answer is 6 * 7 = 42` announces 42."""


def _extract(prediction: str, row: Row) -> str | None:
    text = prediction.replace("−", "-")
    mentions = drop_negated(text, find_numbers(text))
    final = announced(text, mentions, _EQUATION) or (mentions[-1] if mentions else None)
    return final.value if final else None


def _same(answer: str, gold: str) -> bool:
    """Return whether two numbers in canonical form are equal, up to the digits of a truncated gold number."""
    if max(len(answer), len(gold)) > MAX_DIGITS:
        return answer == gold
    if "/" in answer and Fraction(gold).denominator == 1:
        return False  # an answer of 84/2 has not computed 42
    if Fraction(answer) == Fraction(gold):
        return True
    a, b = _decimal(answer), _decimal(gold)
    if _decimals(b) < TRUNCATED_DECIMALS or _decimals(a) < MIN_DECIMALS or "/" in gold:
        return False
    rounding = Context(prec=min(FLOAT_DIGITS, len(a.as_tuple().digits), len(b.as_tuple().digits)))
    return rounding.plus(a) == rounding.plus(b)


def _decimal(value: str) -> Decimal:
    numerator, _, denominator = value.partition("/")
    return Decimal(numerator) / Decimal(denominator) if denominator else Decimal(numerator)


def _decimals(number: Decimal) -> int:
    return -int(number.as_tuple().exponent)


NUMBER = answer_scorer("number", _extract, partial(extracted_gold, "number", "that is a number", _extract), _same)


def find_numbers(text: str) -> list[Mention]:
    """Return the numbers of a text in canonical form, such as `1080.5`, `-3` or `5/6`.

    A number that is malformed (`1,23`, `10-4`, `3:45`), joined to another number (`3 + 4`, `3 or 4`) or separated
    from its sign has the value None. A word with a digit (`42nd`, `COVID-19`) is not a number.

    >>> [mention.value for mention in find_numbers("$1,080.50 for the 3rd of 1 1/2 kg, or 10-4")]
    ['1080.5', '3/2', None]
    """
    numbers: list[Mention] = []
    for mention in _read_tokens(text):
        before = numbers[-1] if numbers else None
        gap = text[before.end if before else 0 : mention.start]
        if before and gap.isspace() and (mixed := _mixed_number(before.value, mention.value)):
            numbers[-1] = Mention(before.start, mention.end, mixed)
            continue
        if before and _JOIN.fullmatch(gap):
            numbers[-1], mention = before._replace(value=None), mention._replace(value=None)
        elif _DETACHED_SIGN.search(gap) or (before and _rest_of_number(text, gap, mention.start)):
            mention = mention._replace(value=None)
        numbers.append(mention)
    return numbers


def _rest_of_number(text: str, gap: str, start: int) -> bool:
    """Return whether the digits at `start` follow a number as thousands, as in `1 000` or `10{,}000`."""
    return not re.search(r"\w", gap) and re.match(r"0\d", text[start:]) is not None


def _read_tokens(text: str) -> Iterator[Mention]:
    for token in _TOKEN.finditer(text):
        word = token[0]
        if not any(digit in word for digit in "0123456789"):
            continue
        number = _NUMBER.fullmatch(_FRACTION.sub(r"\1\2/\3", word).lstrip("*_'").rstrip(_ENDING))
        if number is None:
            if not re.search("[A-Za-z]", word):
                yield Mention(token.start(), token.end(), None)
            continue
        value, end = _canonical(number), token.end() - len(word) + len(word.rstrip(_ENDING))
        scale = _SCALE.match(text, end)
        if scale and value and not number["below"]:
            value, end = plain_decimal(Decimal(f"{value}e{_POWER[scale[1].lower()]}")), scale.end()
        yield Mention(token.start(), end, value)


def _mixed_number(whole: str | None, part: str | None) -> str | None:
    """Return `3/2` for `1` and `1/2`, or None if the two are not a mixed number."""
    if not (whole and part) or "/" not in part or part.startswith("-") or not whole.lstrip("-").isdigit():
        return None
    if len(whole) + len(part) > MAX_DIGITS:
        return None
    sign = -1 if whole.startswith("-") else 1
    return str(Fraction(whole) + sign * Fraction(part))


def plain_decimal(number: Decimal) -> str:
    """Return a number without an exponent and without trailing zeros after the decimal point.

    >>> plain_decimal(Decimal("1.50E+3")), plain_decimal(Decimal("0.50"))
    ('1500', '0.5')
    """
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _canonical(number: re.Match[str]) -> str | None:
    if number["below"] and "." in number["digits"]:  # 1.5/2 is no fraction
        return None
    sign = "-" if "-" in number[0][: number.start("digits")] else ""
    value = plain_decimal(Decimal(number["digits"].replace(",", "")))
    return sign * (value != "0") + value + (number["below"] or "")
