"""The final number of a text: after `####`, in `the answer is 42`, or else the last.

Numbers are compared exactly: thousands separators, currencies, units and needless zeros apart, `1080.50` is
`$1,080.5`. A gold number with five decimals or more was cut off (`1.8333333333333335`), and a prediction of at least
four decimals is right where both round to the same at the fewer of their digits: `1.8333` is, `1.83` and `1.8334` are
not. A fraction counts where the gold is no whole number, a percentage for the number before its sign.
"""

from __future__ import annotations

import re
from decimal import Context, Decimal
from fractions import Fraction

from actshift.errors import ActshiftError
from actshift.tasks.scorers.mention import FILLER, asserted, marked
from actshift.tasks.scorers.numerals import find_numbers
from actshift.tasks.scorers.scorer import Row, Scorer, gold_of

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
