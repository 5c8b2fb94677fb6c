"""The pretraining corpus: self-made documents that teach list operations, some English and some French.

The demo task asks in English for an answer in French; no document here does that with a list operation.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

from actshift.demo.expressions import NUMBERS, Expression, random_expression

NUMBERS_FR = (
    "zéro un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize "
    "dix-sept dix-huit dix-neuf vingt"
).split()
NAMES = "anna ben clara david emma felix".split()
THINGS = {
    "apples": "pommes",
    "books": "livres",
    "cats": "chats",
    "dogs": "chiens",
    "keys": "clés",
    "stars": "étoiles",
}
COLOURS = {"red": "rouge", "yellow": "jaune", "pink": "rose", "brown": "marron", "pale": "pâle"}
PLACES = {
    "house": "maison",
    "table": "table",
    "door": "porte",
    "answer": "réponse",
    "car": "voiture",
    "city": "ville",
}
WORDS = {**dict(zip(NUMBERS, NUMBERS_FR, strict=True)), **THINGS, **COLOURS, **PLACES}


class Document(NamedTuple):
    """One training text in two parts: what is drawn at random, and what follows from it."""

    context: str
    answer: str

    @property
    def text(self) -> str:
        """The whole text, tokens separated by one space."""
        return f"{self.context} {self.answer}"


def expression_for_pretraining(rng: random.Random) -> Expression:
    """Draw an expression of depth 1, 2 or 3 that is not held out."""
    while True:
        expression = random_expression(rng, depth=rng.choices((1, 2, 3), (0.3, 0.55, 0.15))[0])
        if not expression.is_held_out:
            return expression


def as_listops(expression: Expression) -> Document:
    """``[MAX 3 [MIN 9 4 ] ] = 4``."""
    return Document(f"{expression.listops()} =", str(expression.value))


def as_statement(expression: Expression) -> Document:
    """``the largest of three and ( the smallest of nine and four ) is four .``."""
    return Document(f"{expression.english()} is", f"{NUMBERS[expression.value]} .")


def as_question(expression: Expression) -> Document:
    """``what is the sum of three and four ? answer : seven .``."""
    return Document(f"what is {expression.english()} ? answer :", f"{NUMBERS[expression.value]} .")


FORMS = {"listops": as_listops, "statement": as_statement, "question": as_question}
"""The forms in which the base learns list operations."""


def list_operation(rng: random.Random) -> Document:
    """A list operation in one of the three forms."""
    return rng.choice(list(FORMS.values()))(expression_for_pretraining(rng))


def counting(rng: random.Random) -> Document:
    """Number facts: a digit and its word, what comes next, what comes before."""
    n = rng.randrange(20)
    return rng.choice(
        (
            Document(f"the number {n} is", f"{NUMBERS[n]} ."),
            Document(f"the number {NUMBERS[n]} is", f"{n} ."),
            Document(f"after {NUMBERS[n]} comes", f"{NUMBERS[n + 1]} ."),
            Document(f"before {NUMBERS[n + 1]} comes", f"{NUMBERS[n]} ."),
        )
    )


def story(rng: random.Random) -> Document:
    """Two people have things: who has more, or how many together."""
    (one, two), thing = rng.sample(NAMES, 2), rng.choice(list(THINGS))
    m, n = rng.sample(range(10), 2)
    scene = f"{one} has {NUMBERS[m]} {thing} . {two} has {NUMBERS[n]} {thing} ."
    return rng.choice(
        (
            Document(f"{scene} who has more {thing} ? answer :", f"{one if m > n else two} ."),
            Document(f"{scene} together they have", f"{NUMBERS[m + n]} {thing} ."),
        )
    )


def dictionary(rng: random.Random) -> Document:
    """One word in the other language."""
    english, french = rng.choice(list(WORDS.items()))
    return rng.choice(
        (
            Document(f"{english} in french is", f"{french} ."),
            Document(f"{french} in english is", f"{english} ."),
        )
    )


def translation(rng: random.Random) -> Document:
    """A short sentence in English and in French."""
    name, thing, n = rng.choice(NAMES), rng.choice(list(THINGS)), rng.randrange(2, 21)
    place, colour = rng.choice(list(PLACES)), rng.choice(list(COLOURS))
    english, french = rng.choice(
        (
            (f"{name} has {NUMBERS[n]} {thing} .", f"{name} a {NUMBERS_FR[n]} {THINGS[thing]} ."),
            (f"the {place} is {colour} .", f"la {PLACES[place]} est {COLOURS[colour]} ."),
        )
    )
    return rng.choice((Document(f"{english} in french :", french), Document(f"{french} in english :", english)))


def french(rng: random.Random) -> Document:
    """French sentences about how many, with a question to read them by."""
    name, thing, n = rng.choice(NAMES), rng.choice(list(THINGS.values())), rng.randrange(2, 21)
    fact = f"{name} a {NUMBERS_FR[n]} {thing} ."
    return Document(f"{fact} combien de {thing} a {name} ? réponse :", f"{NUMBERS_FR[n]} {thing} .")


MIXTURE: dict[Callable[[random.Random], Document], float] = {
    list_operation: 0.76,
    counting: 0.04,
    story: 0.06,
    dictionary: 0.04,
    translation: 0.06,
    french: 0.04,
}
"""Each kind of document with its share of the corpus."""


def documents(seed: int) -> Iterator[Document]:
    """Yield pretraining documents for ever, the same ones for the same seed."""
    rng = random.Random(seed)
    kinds, shares = list(MIXTURE), list(MIXTURE.values())
    while True:
        yield rng.choices(kinds, shares)[0](rng)


def vocabulary() -> list[str]:
    """Every word the corpus and the task can contain, in a fixed order."""
    rng = random.Random(0)
    words = {word for kind in MIXTURE for _ in range(3000) for word in kind(rng).text.split()}
    return sorted(words | {str(n) for n in range(len(NUMBERS))} | set(WORDS) | set(WORDS.values()))
