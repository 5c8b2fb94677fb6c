"""What the tasks of science questions share: ARC's layout of choices."""

from __future__ import annotations

from typing import Any

from actshift.tasks.example import Example, Row
from actshift.tasks.wording import lettered


def science(row: Row) -> Example:
    """Return the example of a row of ARC, whose choices are labelled by letters, or in part by numbers."""
    return _choose(row["question"], row)


def stem(row: Row) -> Example:
    """Return the example of a row of OpenBookQA, whose question may be the beginning of a sentence."""
    return _choose(row["question_stem"], row)


def to_hub(row: dict[str, Any]) -> Row:
    """Return a local row in the layout of the hub."""
    return {**row, "question_stem": row["question"], "answerKey": row["answer"]}


def _choose(question: str, row: Row) -> Example:
    labels, texts = row["choices"]["label"], row["choices"]["text"]
    return lettered(f"Question: {question.strip()}", texts, list(labels).index(row["answerKey"]))
