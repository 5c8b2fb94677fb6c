"""AQuA-RAT: algebra with five choices, reasoned before it is answered.

Ling et al., *Program Induction by Rationale Generation*, ACL 2017. The completion is the rationale, then the letter.
"""

from __future__ import annotations

import re

from actshift.tasks.formatting import LETTERS, lettered
from actshift.tasks.scorers import get_scorer
from actshift.tasks.source import Example, Folder, Hub, Row, SplitSlice
from actshift.tasks.task import Task

LETTER = re.compile(r"^\s*\(?[A-E]\)\s*")
"""What an option begins with: `A)` on the hub, `(A)` in FLAN's copy."""


def _example(row: Row) -> Example:
    options = [LETTER.sub("", option) for option in row["options"]]
    plain = lettered(f"Question: {row['question'].strip()}", options, LETTERS.index(row["correct"]))
    prompt = plain.prompt.removesuffix("Answer:") + "Solution:"
    return Example(prompt, f" {row['rationale'].strip()}\nAnswer: {plain.answer}", plain.answer, plain.choices)


TASK = Task(
    name="aqua_rat",
    title="Algebra, five choices",
    source=Hub(
        "deepmind/aqua_rat",
        "raw",
        "33301c6a050c96af81f63cad5562cb5363e88971",
        parts={"train": SplitSlice("train"), "validation": SplitSlice("validation"), "test": SplitSlice("test")},
        rows={"train": 97467, "validation": 254, "test": 254},
    ),
    local=Folder(
        {"train": SplitSlice("train_flan_cot"), "validation": SplitSlice("dev"), "test": SplitSlice("test")},
        layout=lambda row: {**row, "rationale": row["answer"]["rationale"], "correct": row["answer"]["final"]},
    ),
    example=_example,
    sample={
        "question": "If 3x + 2 = 17, what is x?",
        "options": ["A)3", "B)4", "C)5", "D)6", "E)7"],
        "rationale": "3x = 17 - 2 = 15, so x = 15 / 3 = 5.",
        "correct": "C",
    },
    scorer=get_scorer("choice"),
    settings={"epochs": 1, "max_length": 512},
    max_new_tokens=256,
)
