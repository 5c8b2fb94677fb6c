"""One ListOps expression, and what its operators mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce


def _median(values: Sequence[int]) -> int:
    """The middle value, or the mean of the two middle ones, rounded down."""
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) // 2


OPERATORS: dict[str, Callable[[Sequence[int]], int]] = {
    "MIN": min,
    "MAX": max,
    "MED": _median,
    "SM": lambda values: sum(values) % 10,
}
"""Every operator by its name: digits in, a digit out."""


@dataclass(frozen=True)
class Expression:
    """A ListOps expression in prefix form, and what it works out to.

    Attributes:
        tokens: the expression, its tokens separated by one space.
        value: what it works out to, 0 to 9.
        length: the number of its tokens.
        depth: the number of operators nested in one another: 0 for a digit, 1 for an operator on digits.

    Example:
        >>> Expression("[MAX 2 [MIN 4 7 ] 0 ]", value=4, length=8, depth=2).source
        '( ( ( ( [MAX 2 ) ( ( ( [MIN 4 ) 7 ) ] ) ) 0 ) ] )'
    """

    tokens: str
    value: int
    length: int
    depth: int

    @property
    def source(self) -> str:
        """The left-branching binary form, with round brackets around every pair, as the published files have it."""
        opened: list[list[str]] = [[]]
        for token in self.tokens.split():
            if token.startswith("["):
                opened.append([token])
                continue
            opened[-1].append(token)
            if token == "]":
                node = reduce(lambda left, right: f"( {left} {right} )", opened.pop())
                opened[-1].append(node)
        return opened[0][0]
