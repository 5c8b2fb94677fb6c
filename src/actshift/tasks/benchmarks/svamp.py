"""SVAMP: word problems with misleading wording.

Patel et al., *Are NLP Models really able to Solve Simple Math Word Problems?*, NAACL 2021. The hub has two splits, so
validation and test are the two halves of its test split.
"""

from __future__ import annotations

from actshift.tasks.formatting import word_problem
from actshift.tasks.scorers import get_scorer
from actshift.tasks.source import Folder, Hub, halves
from actshift.tasks.task import Task

SLICES = halves("test")

TASK = Task(
    name="svamp",
    title="Tricky word problems",
    description=__doc__,
    source=Hub(
        "ChilleD/SVAMP",
        revision="5e0bf1e5e7c0e9c4bc39180d224f41f3f801b7ef",
        slices=SLICES,
        sizes={"train": 700, "test": 300},
    ),
    local=Folder(
        slices=SLICES, layout=lambda row: {"Body": "", "Question": row["question"], "Answer": row["answer"]["final"]}
    ),
    example=lambda row: word_problem(f"{row['Body'].strip()} {row['Question'].strip()}", row["Answer"]),
    sample={
        "Body": "Ben has 7 red pens and 5 blue pens. He bought 2 books.",
        "Question": "How many more red pens than blue pens does he have?",
        "Answer": "2",
    },
    scorer=get_scorer("number"),
    settings={"epochs": 1, "max_length": 256},
)
