"""What the tasks of science questions share: ARC's layout of choices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from actshift.tasks.formatting import lettered
from actshift.tasks.scorers import get_scorer
from actshift.tasks.source import Example, Folder, Hub, Row, SplitSlice, split_by_hash
from actshift.tasks.task import Task


def arc(name: str, title: str, config: str, rows: Mapping[str, int]) -> Task:
    """Return the task of one of ARC's two sets, which on the hub is `config`, with so many `rows` in each split.

    The hub has three splits; the local files lack the validation split, for which a tenth of the training rows is cut.
    """
    return Task(
        name=name,
        title=title,
        source=Hub(
            "allenai/ai2_arc",
            config,
            "210d026faf9955653af8916fad021475a3f00453",
            parts={"train": SplitSlice("train"), "validation": SplitSlice("validation"), "test": SplitSlice("test")},
            rows=rows,
        ),
        local=Folder({**split_by_hash("train", train=0.9, validation=0.1), "test": SplitSlice("test")}, layout=to_hub),
        example=science,
        sample={
            "question": "Which of these is a source of light?",
            "choices": {"label": ["A", "B", "C", "D"], "text": ["a mirror", "a candle", "the moon", "a window"]},
            "answerKey": "B",
        },
        scorer=get_scorer("choice"),
        settings={"epochs": 1, "max_length": 256},
        max_new_tokens=8,
    )


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
