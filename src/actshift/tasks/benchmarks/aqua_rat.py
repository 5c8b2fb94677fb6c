"""AQuA-RAT: algebra with five choices, and reasoning before the answer.

Ling et al., *Program Induction by Rationale Generation*, ACL 2017. The completion is the rationale, then the letter.
"""

from __future__ import annotations

import re

from actshift.data.readers import Row
from actshift.tasks.formatting import LETTERS, Example, lettered
from actshift.tasks.scorers import get_scorer
from actshift.tasks.source import Folder, Hub, whole_splits
from actshift.tasks.task import Task

LETTER = re.compile(r"^\s*\(?[A-E]\)\s*")
"""The start of an option: `A)` on the hub, and `(A)` in the copy of FLAN."""


def _example(row: Row) -> Example:
    options = [LETTER.sub("", option) for option in row["options"]]
    choice = lettered(f"Question: {row['question'].strip()}", options, LETTERS.index(row["correct"]))
    prompt = choice.prompt.removesuffix("Answer:") + "Solution:"
    return Example(prompt, f" {row['rationale'].strip()}\nAnswer: {choice.answer}", choice.answer, choice.choices)


TASK = Task(
    name="aqua_rat",
    title="Algebra with five choices",
    description=__doc__,
    source=Hub(
        "deepmind/aqua_rat",
        revision="33301c6a050c96af81f63cad5562cb5363e88971",
        config="raw",
        slices=whole_splits(train="train", validation="validation", test="test"),
        sizes={"train": 97467, "validation": 254, "test": 254},
    ),
    local=Folder(
        slices=whole_splits(train="train_flan_cot", validation="dev", test="test"),
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
