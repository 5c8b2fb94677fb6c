"""GSM8K: grade-school maths problems with worked solutions.

Cobbe et al., *Training Verifiers to Solve Math Word Problems*, 2021 (arXiv 2110.14168). The hub has two splits, so
validation and test are the two halves of its test split. The completion is the worked solution without the calculator
annotations such as ``<<48/2=24>>``. It ends with ``#### 72``.
"""

from __future__ import annotations

import re

from actshift.data.readers import Row
from actshift.tasks.formatting import Example, number_text
from actshift.tasks.scorers import get_scorer
from actshift.tasks.source import Folder, Hub, halves
from actshift.tasks.task import Task

ANNOTATION = re.compile(r"<<[^<>]*>>")


def _example(row: Row) -> Example:
    solution = ANNOTATION.sub("", row["answer"]).strip()
    answer = number_text(solution.rpartition("####")[2])
    return Example(f"Question: {row['question'].strip()}\nAnswer:", f" {solution}", answer)


TASK = Task(
    name="gsm8k",
    title="Grade-school maths",
    description=__doc__,
    source=Hub(
        "openai/gsm8k",
        revision="740312add88f781978c0658806c59bc2815b9866",
        config="main",
        slices=halves("test"),
        sizes={"train": 7473, "test": 1319},
    ),
    local=Folder(slices=halves("test"), layout=lambda row: {**row, "answer": row["answer"]["text"]}),
    example=_example,
    sample={
        "question": "A box holds 6 eggs. How many eggs are in 3 boxes, if 2 are broken and thrown away?",
        "answer": "The boxes hold 6 * 3 = <<6*3=18>>18 eggs.\nOf these, 18 - 2 = <<18-2=16>>16 are left.\n#### 16",
    },
    scorer=get_scorer("number"),
    settings={"epochs": 3, "max_length": 256},
    max_new_tokens=256,
)
