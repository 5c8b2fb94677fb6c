"""Work out a ListOps expression from its text."""

from __future__ import annotations

from actshift.errors import ActshiftError, did_you_mean
from actshift.tasks.listops.expression import OPERATORS


def evaluate(tokens: str) -> int:
    """Return the value, 0 to 9, of an expression in prefix form or in the binary form with round brackets.

    MIN and MAX as usual, SM the sum modulo 10, MED the median, rounded down (Nangia and Bowman, 2018). Round
    brackets only pair what the square ones order already, so they are left out.

    Raises:
        ActshiftError: a token that is none, or an expression that is not exactly one.

    Example:
        >>> evaluate("[MAX 2 9 [MIN 4 7 ] 0 ]"), evaluate("( ( ( [SM 6 ) 5 ) ] )")
        (9, 1)
    """
    outside: list[int] = []
    opened: list[tuple[str, list[int]]] = []
    for token in tokens.replace("(", " ").replace(")", " ").split():
        if token in _OPENING:
            opened.append((_OPENING[token], []))
            continue
        if token in _DIGITS:
            value = int(token)
        elif token != "]":
            raise ActshiftError(
                f"ListOps has no token {token!r}{did_you_mean(token, _OPENING)}; it has the digits 0 to 9, "
                f"{', '.join(_OPENING)} and ']', separated by spaces."
            )
        elif opened and opened[-1][1]:
            operator, arguments = opened.pop()
            value = OPERATORS[operator](arguments)
        else:
            raise ActshiftError(f"A ']' closes an operator without arguments, or none, in {_short(tokens)!r}.")
        (opened[-1][1] if opened else outside).append(value)
    if opened:
        raise ActshiftError(f"{len(opened)} operators are not closed by ']' in {_short(tokens)!r}.")
    if len(outside) != 1:
        raise ActshiftError(f"A ListOps text holds one expression, and {_short(tokens)!r} holds {len(outside)}.")
    return outside[0]


_OPENING = {f"[{name}": name for name in OPERATORS}
_DIGITS = frozenset("0123456789")


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
