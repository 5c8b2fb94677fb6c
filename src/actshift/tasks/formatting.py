"""Examples of a task, the forms in which they are loaded, and helpers that format a row as an example."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from actshift.errors import ActshiftError

LETTERS = "ABCDEFGHIJ"
MAX_DECIMALS = 6
"""The number of decimals kept in a completion. A model cannot learn the digits after them."""


@dataclass(frozen=True)
class Example:
    """A prompt with its completion and gold answer.

    The completion starts with the space or newline that separates it from the prompt. `answer` has the canonical form
    of the task's scorer, and `choices` are the texts to choose from. A classifier reads `text` (and `text_pair`) and
    learns `answer` as the label.
    """

    prompt: str
    completion: str
    answer: str
    choices: tuple[str, ...] = ()
    text: str | None = None
    text_pair: str | None = None

    def as_text(self) -> dict[str, Any]:
        """Return the columns prompt, completion, answer, and choices if there are any."""
        return {"prompt": self.prompt, "completion": self.completion, **self._gold()}

    def as_messages(self) -> dict[str, Any]:
        """Return the columns messages, answer, and choices if there are any.

        >>> Example("2 + 2 =", " 4", "4").as_messages()["messages"][1]
        {'role': 'assistant', 'content': '4'}
        """
        turns = [("user", self.prompt), ("assistant", self.completion.strip())]
        return {"messages": [{"role": role, "content": content} for role, content in turns], **self._gold()}

    def as_labels(self) -> dict[str, Any]:
        """Return the columns text, text_pair if there is a second text, and label."""
        pair = {} if self.text_pair is None else {"text_pair": self.text_pair}
        return {"text": self.text, **pair, "label": self.answer}

    def _gold(self) -> dict[str, Any]:
        return {"answer": self.answer, **({"choices": list(self.choices)} if self.choices else {})}


FORMS: dict[str, Callable[[Example], dict[str, Any]]] = {
    "text": Example.as_text,
    "messages": Example.as_messages,
    "labels": Example.as_labels,
}
"""The forms of a loaded row by name."""


def lettered(question: str, choices: Sequence[str], answer: int) -> Example:
    """Return an example that lists choices by letter under a question. `answer` is the index of the right choice.

    >>> example = lettered("Which is a fruit?", ["oak", "pear"], 1)
    >>> example.prompt, example.completion
    ('Which is a fruit?\\nA. oak\\nB. pear\\nAnswer:', ' B')
    """
    listed = "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False))
    letter = LETTERS[answer]
    return Example(f"{question}\n{listed}\nAnswer:", f" {letter}", letter, tuple(choices))


def lettered_by_key(question: str, choices: Mapping[str, Sequence[str]], key: str) -> Example:
    """Return a `lettered` example for choices with keys, as ARC and OpenBookQA have them.

    Args:
        question: the question.
        choices: the keys of the choices as "label" (letters or numbers), and their texts as "text".
        key: the key of the right choice.

    >>> lettered_by_key("Which is a fruit?", {"label": ["1", "2"], "text": ["oak", "pear"]}, "2").answer
    'B'
    """
    return lettered(f"Question: {question.strip()}", choices["text"], list(choices["label"]).index(key))


def word_problem(question: str, answer: str | float) -> Example:
    """Return an example whose completion is a number.

    >>> word_problem("How many legs have 2 cats?", 8.0).completion
    ' 8'
    """
    number = number_text(answer)
    return Example(f"Question: {question.strip()}\nAnswer:", f" {number}", number)


def number_text(value: str | float) -> str:
    """Return a number without thousands separators or trailing zeros, rounded to `MAX_DECIMALS` decimals.

    >>> [number_text(value) for value in (12.0, "1,080", 1.8333333333333335, -0.5, "34.720", 2400000.0)]
    ['12', '1080', '1.833333', '-0.5', '34.72', '2400000']
    """
    return plain_decimal(round(Decimal(str(value).replace(",", "").strip()), MAX_DECIMALS))


def plain_decimal(number: Decimal) -> str:
    """Return a number without an exponent and without trailing zeros after the decimal point.

    >>> plain_decimal(Decimal("1.50E+3")), plain_decimal(Decimal("0.50"))
    ('1500', '0.5')
    """
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def label_name(labels: Sequence[str], value: int | str) -> str:
    """Return the name of a label that a source stores as a name or as an index into `labels`.

    Raises:
        ActshiftError: the value is neither, such as the -1 of rows without a label.

    >>> label_name(("no", "yes"), 1), label_name(("no", "yes"), "yes")
    ('yes', 'yes')
    """
    if value in labels:
        return str(value)
    if isinstance(value, int) and 0 <= value < len(labels):
        return labels[value]
    raise ActshiftError(f"has the label {value!r}; it must be one of {', '.join(labels)}")
