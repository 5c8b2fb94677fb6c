"""Social IQa: what people in a situation feel, want or do.

Sap et al., *Social IQa: Commonsense Reasoning about Social Interactions*, EMNLP 2019. The hub has two splits:
validation and test are halves of its validation split. The dataset is a loading script there; the commit pinned is
of its conversion to Parquet.
"""

from __future__ import annotations

from actshift.tasks.formatting import LETTERS, lettered
from actshift.tasks.scorers import get_scorer
from actshift.tasks.source import Example, Folder, Hub, Row, SplitSlice, split_by_hash
from actshift.tasks.task import Task


def _example(row: Row) -> Example:
    question = f"{row['context'].strip()}\nQuestion: {row['question'].strip()}"
    return lettered(question, [row["answerA"], row["answerB"], row["answerC"]], int(row["label"]) - 1)


TASK = Task(
    name="social_iqa",
    title="Social situations",
    source=Hub(
        "allenai/social_i_qa",
        "default",
        "537a2ec8ec565adc0b70b70752893e59e024df26",
        parts={"train": SplitSlice("train"), **split_by_hash("validation", validation=0.5, test=0.5)},
        rows={"train": 33410, "validation": 1954},
    ),
    local=Folder(
        {"train": SplitSlice("train"), **split_by_hash("dev", validation=0.5, test=0.5)},
        layout=lambda row: {**row, "label": LETTERS.index(row["answer"]) + 1},
    ),
    example=_example,
    sample={
        "context": "Robin carried the heavy bags of an old neighbour up the stairs.",
        "question": "How would you describe Robin?",
        "answerA": "helpful",
        "answerB": "careless",
        "answerC": "hungry",
        "label": "1",
    },
    scorer=get_scorer("choice"),
    settings={"epochs": 1, "max_length": 256},
    max_new_tokens=8,
)
