"""The demo task: a list operation asked in English, answered by a French sentence."""

from __future__ import annotations

import random

from actshift.demo.corpus import NUMBERS_FR
from actshift.demo.expressions import Expression, Split, random_expression


def prompt_of(expression: Expression) -> str:
    """The question, in English."""
    return f"what is {expression.english()} ? réponse :"


def completion_of(expression: Expression) -> str:
    """The answer, a French sentence; it starts with a space so that prompt + completion reads as one text."""
    return f" {NUMBERS_FR[expression.value]} est la réponse ."


def make_rows(split: Split, n: int, seed: int = 0) -> list[dict[str, str]]:
    """Return `n` different rows ``{"prompt", "completion"}`` of a split, the same ones for the same seed.

    Splits share no expression whatever the seeds, and no test expression was in the pretraining corpus.

    >>> make_rows("test", 1)[0]["completion"].endswith(" est la réponse .")
    True
    """
    rng = random.Random(f"{split} {seed}")
    expressions: dict[Expression, None] = {}
    while len(expressions) < n:
        expression = random_expression(rng, depth=2)
        if expression.split == split:
            expressions[expression] = None
    return [{"prompt": prompt_of(e), "completion": completion_of(e)} for e in expressions]
