"""ListOps (Nangia and Bowman, 2018): nested list operations over digits, drawn and worked out."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import islice

from actshift.errors import ActshiftError, did_you_mean


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


OPERATOR_PROBABILITY = 0.25
"""How often a node above the last level is an operator, not a digit (Nangia and Bowman, 2018)."""

PATIENCE = 100_000
"""How many draws in a row may bring nothing new before the settings are taken to hold no more."""

_NAMES = tuple(OPERATORS)


def stream(
    seed: int, max_depth: int = 10, max_args: int = 10, min_length: int = 16, max_length: int = 64
) -> Iterator[Expression]:
    """Yield distinct expressions with `min_length < length < max_length`, the same for the same seed anywhere.

    The tree grows from the root at depth 1: above depth `max_depth` a node is an operator with probability
    0.25, with 2 to `max_args` arguments (uniform), and a digit otherwise; at `max_depth` it is a digit. The
    defaults are those of the Long Range Arena (Tay et al., 2020), with its ratio of the two lengths [ours].

    Raises:
        ActshiftError: at once for settings that no expression fits, later where there seem to be no more.

    Example:
        >>> next(stream(seed=0, max_args=3, min_length=3, max_length=6)).tokens
        '[SM 2 4 3 ]'
    """
    _check(max_depth, max_args, min_length, max_length)
    return _stream(seed, max_depth, max_args, min_length, max_length)


def generate(n: int, seed: int, **settings: int) -> list[Expression]:
    """Return the first `n` expressions of `stream`, whose settings these are.

    Raises ActshiftError for settings that no expression fits, or that fit fewer than `n`.

    Example:
        >>> [expression.tokens for expression in generate(2, seed=0, max_args=3, min_length=3, max_length=6)]
        ['[SM 2 4 3 ]', '[MED 5 7 ]']
    """
    if n < 0:
        raise ActshiftError(f"n must be 0 or more, got {n}.")
    return list(islice(stream(seed, **settings), n))


def draw(rng: random.Random, max_depth: int, max_args: int, min_length: int, max_length: int) -> Expression | None:
    """Draw one expression, or None for one whose length is out of bounds, which is given up once that is certain.

    Where one digit is too short, the root is an operator: of the draws that fit, this changes none. Only
    `random()` is called, whose sequence Python promises for a seed.
    """
    tokens: list[str] = []
    opened: list[tuple[str, int, list[int]]] = []  # operator, how many arguments, their values so far
    room = max_length - 2  # how many tokens more than those that are certain to come would fit
    depth = 0
    while True:
        is_forced = not tokens and min_length >= 1
        if len(opened) + 1 < max_depth and (is_forced or rng.random() < OPERATOR_PROBABILITY):
            arity = 2 + int(rng.random() * (max_args - 1))
            room -= arity + 1
            if room < 0:
                return None
            operator = _NAMES[int(rng.random() * len(_NAMES))]
            tokens.append(f"[{operator}")
            opened.append((operator, arity, []))
            depth = max(depth, len(opened))
            continue
        value = int(rng.random() * 10)
        tokens.append(str(value))
        while opened:
            operator, arity, arguments = opened[-1]
            arguments.append(value)
            if len(arguments) < arity:
                break
            opened.pop()
            tokens.append("]")
            value = OPERATORS[operator](arguments)
        else:
            fits = min_length < len(tokens) < max_length
            return Expression(" ".join(tokens), value, len(tokens), depth) if fits else None


def _stream(seed: int, max_depth: int, max_args: int, min_length: int, max_length: int) -> Iterator[Expression]:
    rng = random.Random(seed)
    seen: set[str] = set()
    misses = 0
    while misses < PATIENCE:
        drawn = draw(rng, max_depth, max_args, min_length, max_length)
        if drawn is None or drawn.tokens in seen:
            misses += 1
            continue
        misses = 0
        seen.add(drawn.tokens)
        yield drawn
    raise ActshiftError(
        f"After {len(seen)} distinct expressions, {PATIENCE:,} draws in a row brought no other with "
        f"{min_length} < length < {max_length}, max_depth={max_depth} and max_args={max_args}; ask for fewer, "
        "or allow more lengths."
    )


def _check(max_depth: int, max_args: int, min_length: int, max_length: int) -> None:
    for name, given, least in (("max_depth", max_depth, 1), ("max_args", max_args, 2), ("min_length", min_length, 0)):
        if given < least:
            raise ActshiftError(f"{name} must be at least {least}, got {given}.")
    shortest = 1 if min_length == 0 else 4
    if max_length <= max(shortest, min_length + 1):
        raise ActshiftError(
            f"No expression has {min_length} < length < {max_length}: a digit has length 1 and an operator 4 or more; "
            f"give a max_length above {max(shortest, min_length + 1)}."
        )
    if max_depth == 1 and min_length >= 1:
        raise ActshiftError(
            f"With max_depth=1 there are only the ten digits, and min_length={min_length} leaves them out; "
            "give a max_depth of 2 or more."
        )
