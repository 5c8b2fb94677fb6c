"""The pretraining corpus and the tokenizer of the bundled demo model.

The corpus is generated: list operations, some English and some French. The demo task asks in English for an answer in
French; no document does that with a list operation.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from actshift.demo.task import NUMBERS, NUMBERS_FR, Expression, random_expression

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

SPECIAL_TOKENS = ("<pad>", "<eos>", "<unk>")
PAD_ID, EOS_ID = 0, 1


class Document(NamedTuple):
    """A training text in two parts: a random context, and the answer that follows from it."""

    context: str
    answer: str

    @property
    def text(self) -> str:
        """The whole text, with one space between tokens."""
        return f"{self.context} {self.answer}"


def draw_pretraining_expression(rng: random.Random) -> Expression:
    """Draw an expression of depth 1, 2 or 3 that is not held out."""
    while True:
        expression = random_expression(rng, depth=rng.choices((1, 2, 3), (0.3, 0.55, 0.15))[0])
        if not expression.is_held_out:
            return expression


def as_listops(expression: Expression) -> Document:
    """Return ``[MAX 3 [MIN 9 4 ] ] = 4``."""
    return Document(f"{expression.listops()} =", str(expression.value))


def as_statement(expression: Expression) -> Document:
    """Return ``the largest of three and ( the smallest of nine and four ) is four .``."""
    return Document(f"{expression.english()} is", f"{NUMBERS[expression.value]} .")


def as_question(expression: Expression) -> Document:
    """Return ``what is the sum of three and four ? answer : seven .``."""
    return Document(f"what is {expression.english()} ? answer :", f"{NUMBERS[expression.value]} .")


FORMS = {"listops": as_listops, "statement": as_statement, "question": as_question}
"""The forms in which the base model learns list operations."""


def list_operation(rng: random.Random) -> Document:
    """Return a list operation in one of the three forms."""
    return rng.choice(list(FORMS.values()))(draw_pretraining_expression(rng))


def counting(rng: random.Random) -> Document:
    """Return a fact about numbers: a digit and its word, a successor or a predecessor."""
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
    """Return a story about the belongings of two people: who has more, or how many they have together."""
    (first, second), thing = rng.sample(NAMES, 2), rng.choice(list(THINGS))
    m, n = rng.sample(range(10), 2)
    scene = f"{first} has {NUMBERS[m]} {thing} . {second} has {NUMBERS[n]} {thing} ."
    return rng.choice(
        (
            Document(f"{scene} who has more {thing} ? answer :", f"{first if m > n else second} ."),
            Document(f"{scene} together they have", f"{NUMBERS[m + n]} {thing} ."),
        )
    )


def dictionary(rng: random.Random) -> Document:
    """Return the translation of a word."""
    english, french = rng.choice(list(WORDS.items()))
    return rng.choice(
        (
            Document(f"{english} in french is", f"{french} ."),
            Document(f"{french} in english is", f"{english} ."),
        )
    )


def translation(rng: random.Random) -> Document:
    """Return the translation of a short sentence."""
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
    """Return a French question about a number that the text contains."""
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
    """Yield pretraining documents without end, always the same for the same seed."""
    rng = random.Random(seed)
    kinds, shares = list(MIXTURE), list(MIXTURE.values())
    while True:
        yield rng.choices(kinds, shares)[0](rng)


def vocabulary() -> list[str]:
    """Return every word that the corpus and the task can contain, in a fixed order."""
    rng = random.Random(0)
    words = {word for kind in MIXTURE for _ in range(3000) for word in kind(rng).text.split()}
    return sorted(words | {str(n) for n in range(len(NUMBERS))} | set(WORDS) | set(WORDS.values()))


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return the word-level tokenizer; it pads on the left, so that batches can generate."""
    tokens = [*SPECIAL_TOKENS, *vocabulary()]
    tokenizer = Tokenizer(WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    # Documents start with no special token, so <eos> also marks the start of a text, as in GPT-2.
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<eos>",
        eos_token="<eos>",
        unk_token="<unk>",
        padding_side="left",
        model_max_length=128,
        clean_up_tokenization_spaces=False,
    )
