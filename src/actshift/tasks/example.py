"""One row of a task, and the forms in which a trainer or a scorer reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Example:
    """A prompt, the completion that is learnt (it begins with what separates the two), and the gold `answer`.

    `choices` are the texts to choose from, where there are some. `text` and `text_pair` are what a classifier reads;
    its label is the answer.
    """

    prompt: str
    completion: str
    answer: str
    choices: tuple[str, ...] = ()
    text: str | None = None
    text_pair: str | None = None


def text_row(example: Example) -> dict[str, Any]:
    """Return the columns prompt, completion, answer, and choices where there are some."""
    return {"prompt": example.prompt, "completion": example.completion, **_gold(example)}


def messages_row(example: Example) -> dict[str, Any]:
    """Return the columns messages (the prompt as a user's turn, the completion as the answer), answer and choices.

    >>> messages_row(Example("2 + 2 =", " 4", "4"))["messages"][1]
    {'role': 'assistant', 'content': '4'}
    """
    turns = [("user", example.prompt), ("assistant", example.completion.strip())]
    return {"messages": [{"role": role, "content": content} for role, content in turns], **_gold(example)}


def labels_row(example: Example) -> dict[str, Any]:
    """Return the columns text, text_pair where there are two texts, and label."""
    pair = {} if example.text_pair is None else {"text_pair": example.text_pair}
    return {"text": example.text, **pair, "label": example.answer}


def _gold(example: Example) -> dict[str, Any]:
    return {"answer": example.answer, **({"choices": list(example.choices)} if example.choices else {})}


FORMS: dict[str, Callable[[Example], dict[str, Any]]] = {
    "text": text_row,
    "messages": messages_row,
    "labels": labels_row,
}
"""The forms by name."""
