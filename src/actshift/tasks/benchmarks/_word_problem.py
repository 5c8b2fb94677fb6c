"""What the tasks of short word problems share: the answer is a number."""

from __future__ import annotations

from actshift.tasks.formatting import number_text
from actshift.tasks.source import Example


def word_problem(question: str, answer: str | float) -> Example:
    """Return a question with a number for its completion.

    >>> word_problem("How many legs have 2 cats?", 8.0).completion
    ' 8'
    """
    number = number_text(answer)
    return Example(f"Question: {question.strip()}\nAnswer:", f" {number}", number)
