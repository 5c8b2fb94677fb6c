"""ListOps of length 64: generated nested list operations on digits.

Nangia and Bowman, *ListOps: A Diagnostic Dataset for Latent Tree Learning*, 2018 (arXiv 1804.06028), with the grammar
of the Long Range Arena (Tay et al., arXiv 2011.04006). The paper uses a dataset of length 64 on the hub that was not
available. This project therefore chooses the minimum length, and takes the numbers of rows from the set of length
1,000. Expressions have 17 to 63 tokens. The local file is the test set of spinn, without expressions longer than 64
tokens. It is divided into three splits.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from math import floor
from statistics import median
from typing import Any

from actshift.data.rows import Row
from actshift.errors import ActshiftError
from actshift.tasks.scorers import get_scorer
from actshift.tasks.source import Folder, Source, split_by_hash
from actshift.tasks.task import Example, Task

MAX_LENGTH = 64
SIDES = split_by_hash("all")  # no expression is in two splits
OPERATOR_PROBABILITY = 0.25  # of a node above the last level, which is else a digit (Nangia and Bowman, 2018)
MAX_MISSES = 100_000  # draws in a row without a new expression after which the settings are considered exhausted


@dataclass(frozen=True)
class Generated(Source):
    """Expressions of one seeded stream. Each split has the first ones of the stream that belong to it."""

    def read(self, task: str, split: str) -> Iterator[Row]:
        """Return the rows of a split, which are generated on request, at about 6,000 rows a second."""
        rows = (asdict(expression) for expression in stream(seed=0) if SIDES[split].contains(expression.tokens))
        return islice(rows, self.sizes[split])

    def __str__(self) -> str:
        return "generated, not from a dataset"


def _layout(row: dict[str, Any]) -> Row | None:
    return {"tokens": row["tokens"], "value": row["answer"]} if row["length"] <= MAX_LENGTH else None


TASK = Task(
    name="listops",
    title="Nested list operations",
    description=__doc__,
    source=Generated(sizes={"train": 96_000, "validation": 2_000, "test": 2_000}),
    local=Folder(slices=split_by_hash("spinn_test_d20s"), layout=_layout),
    example=lambda row: Example(f"{row['tokens']}\nValue:", f" {row['value']}", str(row["value"])),
    sample={"tokens": "[MAX 2 9 [MIN 4 7 ] 0 ]", "value": 9},
    scorer=get_scorer("number"),
    settings={"epochs": 1, "max_length": 512},
    max_new_tokens=8,
)

OPERATORS: dict[str, Callable[[Sequence[int]], int]] = {
    "MIN": min,
    "MAX": max,
    "MED": lambda digits: floor(median(digits)),
    "SM": lambda digits: sum(digits) % 10,
}


@dataclass(frozen=True)
class Expression:
    """A ListOps expression in prefix form, as tokens separated by one space, and its value from 0 to 9."""

    tokens: str
    value: int


def stream(
    seed: int, max_depth: int = 10, max_args: int = 10, min_length: int = 16, max_length: int = MAX_LENGTH
) -> Iterator[Expression]:
    """Yield distinct expressions with `min_length < length < max_length`, the same for a seed on every machine.

    The tree grows from the root at depth 1. Above depth `max_depth` a node is an operator with probability 0.25, with
    2 to `max_args` arguments (uniform), and a digit otherwise. At `max_depth` it is a digit. The defaults are from the
    Long Range Arena, and so is the ratio of the two lengths.

    Raises:
        ActshiftError: no expression fits the settings, or (while iterating) no more expressions were found.

    >>> next(stream(seed=0, max_args=3, min_length=3, max_length=6))
    Expression(tokens='[SM 2 4 3 ]', value=9)
    """
    for name, value, least in (("max_depth", max_depth, 1), ("max_args", max_args, 2), ("min_length", min_length, 0)):
        if value < least:
            raise ActshiftError(f"{name} must be at least {least}, got {value}.")
    if max_length <= (least := max(1 if min_length == 0 else 4, min_length + 1)):
        problem = f"No expression has {min_length} < length < {max_length}: a digit has length 1, an operator 4 or more"
        raise ActshiftError(f"{problem}; use a max_length above {least}.")
    if max_depth == 1 and min_length >= 1:
        raise ActshiftError("max_depth=1 only allows the ten digits; use a max_depth of 2 or more, or min_length=0.")
    return _stream(seed, max_depth, max_args, min_length, max_length)


def _stream(seed: int, max_depth: int, max_args: int, min_length: int, max_length: int) -> Iterator[Expression]:
    rng = random.Random(seed)
    seen: set[str] = set()
    misses = 0
    while misses < MAX_MISSES:
        drawn = draw(rng, max_depth, max_args, min_length, max_length)
        if drawn is None or drawn.tokens in seen:
            misses += 1
            continue
        misses = 0
        seen.add(drawn.tokens)
        yield drawn
    raise ActshiftError(
        f"After {len(seen)} distinct expressions, {MAX_MISSES:,} draws in a row found no other one with "
        f"{min_length} < length < {max_length}; request fewer, or allow more lengths."
    )


def draw(rng: random.Random, max_depth: int, max_args: int, min_length: int, max_length: int) -> Expression | None:
    """Draw one expression, or return None as soon as its length is certain to be out of bounds.

    If a single digit is too short, the root is always an operator, which does not change the distribution of the
    expressions that fit. Only `rng.random()` is used, because Python guarantees its sequence for a seed.
    """
    tokens: list[str] = []
    opened: list[tuple[str, int, list[int]]] = []  # operator, its number of arguments, their values so far
    room = max_length - 2  # the number of tokens that still fit
    names = tuple(OPERATORS)
    while True:
        is_forced = not tokens and min_length >= 1
        if len(opened) + 1 < max_depth and (is_forced or rng.random() < OPERATOR_PROBABILITY):
            arity = 2 + int(rng.random() * (max_args - 1))
            room -= arity + 1
            if room < 0:
                return None
            operator = names[int(rng.random() * len(names))]
            tokens.append(f"[{operator}")
            opened.append((operator, arity, []))
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
            return Expression(" ".join(tokens), value) if min_length < len(tokens) < max_length else None
