"""MAWPS: word problems with one or a few steps.

Koncel-Kedziorski et al., *MAWPS: A Math Word Problem Repository*, NAACL 2016. The only split on the hub is divided into
three. It has `N_00` in place of each number in a question. The local files are the published split of LLM-Adapters.
Of its 475 held-out questions, 61 are also training questions.
"""

from __future__ import annotations

import re

from actshift.data.readers import Row
from actshift.tasks.formatting import Example, number_text, word_problem
from actshift.tasks.scorers import get_scorer
from actshift.tasks.source import Folder, Hub, split_by_hash, whole_splits
from actshift.tasks.task import Task


def _example(row: Row) -> Example:
    numbers = str(row["Numbers"]).split()
    question = re.sub(r"N_(\d+)", lambda match: number_text(numbers[int(match[1])]), row["Question"])
    return word_problem(question, row["Answer"])


TASK = Task(
    name="mawps",
    title="Word problems",
    description=__doc__,
    source=Hub(
        "mwpt5/MAWPS",
        revision="5769dc9a31ea36eaeaab1f1e0aa1a54b6c08d804",
        slices=split_by_hash("train"),
        sizes={"train": 1772},
    ),
    local=Folder(
        slices=whole_splits(train="train", validation="dev", test="test"),
        layout=lambda row: {"Question": row["question"], "Numbers": "", "Answer": row["answer"]["final"]},
    ),
    example=_example,
    sample={"Question": "Ada had N_00 stamps and sold N_01 . How many are left ?", "Numbers": "9.0 4.0", "Answer": 5.0},
    scorer=get_scorer("number"),
    settings={"epochs": 3, "max_length": 256},
)
