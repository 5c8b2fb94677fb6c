"""MAWPS: word problems of one or a few steps.

Koncel-Kedziorski et al., *MAWPS: A Math Word Problem Repository*, NAACL 2016. The hub's copy has one split, which is
cut in three, and `N_00` for each number in a question. The local files are the split of LLM-Adapters as published,
in which 61 of 475 held-out questions are training questions too.
"""

from __future__ import annotations

import re

from actshift.tasks.benchmarks._word_problem import word_problem
from actshift.tasks.formatting import number_text
from actshift.tasks.scorers import get_scorer
from actshift.tasks.source import Example, Folder, Hub, Row, SplitSlice, split_by_hash
from actshift.tasks.task import Task


def _example(row: Row) -> Example:
    numbers = str(row["Numbers"]).split()
    question = re.sub(r"N_(\d+)", lambda match: number_text(numbers[int(match[1])]), row["Question"])
    return word_problem(question, row["Answer"])


TASK = Task(
    name="mawps",
    title="Word problems",
    source=Hub(
        "mwpt5/MAWPS",
        None,
        "5769dc9a31ea36eaeaab1f1e0aa1a54b6c08d804",
        parts=split_by_hash("train", train=0.8, validation=0.1, test=0.1),
        rows={"train": 1772},
    ),
    local=Folder(
        {"train": SplitSlice("train"), "validation": SplitSlice("dev"), "test": SplitSlice("test")},
        layout=lambda row: {"Question": row["question"], "Numbers": "", "Answer": row["answer"]["final"]},
    ),
    example=_example,
    sample={
        "Question": "Ada had N_00 stamps and gave away N_01 . How many stamps are left ?",
        "Numbers": "9.0 4.0",
        "Answer": 5.0,
    },
    scorer=get_scorer("number"),
    settings={"epochs": 3, "max_length": 256},
    max_new_tokens=16,
)
