"""The demo task: a nested list operation asked in English and answered by a French sentence."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty"
).split()
NUMBERS_FR = (
    "zéro un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize "
    "dix-sept dix-huit dix-neuf vingt"
).split()
LARGEST_VALUE = len(NUMBERS) - 1

Split = Literal["train", "validation", "test"]


def make_rows(split: Split, n: int, seed: int = 0) -> list[dict[str, str]]:
    """Return `n` different rows ``{"prompt", "completion"}`` of a split, always the same for the same seed.

    Splits share no expression for any seed, and the pretraining corpus contained no test expression.

    >>> make_rows("test", 1)[0]["completion"].endswith(" est la réponse .")
    True
    """
    rng = random.Random(f"{split} {seed}")
    expressions: dict[Expression, None] = {}
    while len(expressions) < n:
        expression = random_expression(rng, depth=2)
        if expression.split == split:
            expressions[expression] = None
    return [{"prompt": format_prompt(e), "completion": format_completion(e)} for e in expressions]


def format_prompt(expression: Expression) -> str:
    """Return the question in English."""
    return f"what is {expression.english()} ? réponse :"


def format_completion(expression: Expression) -> str:
    """Return the answer in French; with a leading space, prompt + completion reads as one text."""
    return f" {NUMBERS_FR[expression.value]} est la réponse ."


def assign_split(text: str) -> Split:
    """Return the split of a text by its hash: 80 % train, 10 % validation, 10 % test."""
    bucket = zlib.crc32(text.encode()) % 10
    return "test" if bucket == 0 else "validation" if bucket == 1 else "train"


@dataclass(frozen=True)
class Operation:
    """A list operation: its English name, its ListOps symbol, and the numbers of arguments that it takes."""

    name: str
    symbol: str
    compute: Callable[[Sequence[int]], int]
    arities: tuple[int, ...] = (2, 3)

    def of(self, arguments: Sequence[str]) -> str:
        """Return the operation on `arguments` in English.

        >>> OPERATIONS["sum"].of(["three", "four"])
        'the sum of three and four'
        """
        return f"the {self.name} of {' , '.join(arguments[:-1])} and {arguments[-1]}"


OPERATIONS = {
    operation.name: operation
    for operation in (
        Operation("largest", "MAX", max),
        Operation("smallest", "MIN", min),
        Operation("first", "FIRST", lambda values: values[0]),
        Operation("last", "LAST", lambda values: values[-1]),
        Operation("sum", "SUM", sum, arities=(2,)),
        Operation("difference", "DIFF", lambda values: abs(values[0] - values[1]), arities=(2,)),
    )
}


@dataclass(frozen=True)
class Expression:
    """A list operation on numbers and nested expressions.

    >>> inner = Expression(OPERATIONS["smallest"], (9, 4))
    >>> Expression(OPERATIONS["largest"], (3, inner)).english()
    'the largest of three and ( the smallest of nine and four )'
    """

    operation: Operation
    arguments: tuple[int | Expression, ...]

    @property
    def value(self) -> int:
        """Value of the expression."""
        return self.operation.compute([a if isinstance(a, int) else a.value for a in self.arguments])

    @property
    def depth(self) -> int:
        """Nesting depth; 1 for an operation on plain numbers."""
        return 1 + max(0 if isinstance(a, int) else a.depth for a in self.arguments)

    @property
    def split(self) -> Split:
        """Split of the expression."""
        return assign_split(self.listops())

    @property
    def is_held_out(self) -> bool:
        """True for a nested expression of the test split or with one inside; pretraining never shows these."""
        parts = (a for a in self.arguments if isinstance(a, Expression))
        return self.depth > 1 and (self.split == "test" or any(part.is_held_out for part in parts))

    def listops(self) -> str:
        """Return ListOps notation (Nangia and Bowman, 2018) with digits: ``[MAX 3 [MIN 9 4 ] ]``."""
        arguments = [str(a) if isinstance(a, int) else a.listops() for a in self.arguments]
        return f"[{self.operation.symbol} {' '.join(arguments)} ]"

    def english(self) -> str:
        """Return English with number words: ``the largest of three and ( the smallest of nine and four )``."""
        return self.operation.of([NUMBERS[a] if isinstance(a, int) else f"( {a.english()} )" for a in self.arguments])


def random_expression(rng: random.Random, depth: int) -> Expression:
    """Draw an expression of exactly this depth in which every value is at most 20."""
    while True:
        operation = rng.choice(list(OPERATIONS.values()))
        arity = rng.choice(operation.arities)
        arguments: list[int | Expression] = [rng.randrange(10) for _ in range(arity)]
        if depth > 1:
            arguments[rng.randrange(arity)] = random_expression(rng, depth - 1)
        expression = Expression(operation, tuple(arguments))
        if expression.value <= LARGEST_VALUE:
            return expression
