"""A task that needs new knowledge and a new form: list operations on what people own, answered in French.

Neither the corpus of the base model nor the prompt tells how many of each thing a person owns. A model can only learn
it from the answers. The answers have the form of the demo task.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations

from demo_corpus import NAMES, THINGS

from actshift.demo.task import NUMBERS, NUMBERS_FR, OPERATIONS, Operation, Split, assign_split

Belongings = tuple[str, str]
"""A thing in the plural, and its owner."""


def _facts() -> dict[Belongings, int]:
    owned = [(thing, name) for name in NAMES for thing in THINGS]
    random.Random("facts").shuffle(owned)
    return {belongings: i % 10 for i, belongings in enumerate(owned)}


FACTS = _facts()
"""The number of each belonging: 36 numbers from 0 to 9, each three or four times, the same in all splits."""


@dataclass(frozen=True)
class Question:
    """A list operation on two terms; at least one is a belonging, and the other may be a number.

    >>> Question(OPERATIONS["sum"], ("cats", "anna"), 4).prompt
    'what is the sum of the cats of anna and four ? réponse :'
    """

    operation: Operation
    first: Belongings | int
    second: Belongings | int

    @property
    def prompt(self) -> str:
        """The question in English."""
        terms = [NUMBERS[t] if isinstance(t, int) else f"the {t[0]} of {t[1]}" for t in (self.first, self.second)]
        return f"what is {self.operation.of(terms)} ? réponse :"

    @property
    def completion(self) -> str:
        """The answer in French; with a leading space, prompt + completion reads as one text."""
        return f" {NUMBERS_FR[self.value()]} est la réponse ."

    @property
    def split(self) -> Split:
        """Split of the question."""
        return assign_split(self.prompt)

    def value(self, facts: Mapping[Belongings, int] = FACTS) -> int:
        """Return the value of the operation."""
        return self.operation.compute([t if isinstance(t, int) else facts[t] for t in (self.first, self.second)])


def questions(split: Split) -> list[Question]:
    """Return all questions of a split: 80, 10 and 10 % of 11,880."""
    terms = [*FACTS, *range(10)]
    return [
        question
        for operation in OPERATIONS.values()
        for first, second in permutations(terms, 2)
        if not (isinstance(first, int) and isinstance(second, int))
        and (question := Question(operation, first, second)).split == split
    ]


def make_rows(split: Split) -> list[dict[str, str]]:
    """Return the rows ``{"prompt", "completion"}`` of all questions of a split.

    Every fact occurs in every split, but no question occurs in two. The test therefore measures if the facts were
    learnt, not the answers.

    >>> make_rows("test")[0]["completion"].endswith(" est la réponse .")
    True
    """
    return [{"prompt": question.prompt, "completion": question.completion} for question in questions(split)]
