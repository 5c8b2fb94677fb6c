"""Social IQa: questions about the feelings, wishes and actions of people in a situation.

Sap et al., *Social IQa: Commonsense Reasoning about Social Interactions*, EMNLP 2019. The hub has two splits, so
validation and test are the two halves of its validation split. The dataset on the hub is a loading script. The pinned
commit is its conversion to Parquet.
"""

from __future__ import annotations

from actshift.data.readers import Row
from actshift.tasks.formatting import LETTERS, Example, lettered
from actshift.tasks.scorers import get_scorer
from actshift.tasks.source import Folder, Hub, halves
from actshift.tasks.task import Task


def _example(row: Row) -> Example:
    question = f"{row['context'].strip()}\nQuestion: {row['question'].strip()}"
    return lettered(question, [row["answerA"], row["answerB"], row["answerC"]], int(row["label"]) - 1)


TASK = Task(
    name="social_iqa",
    title="Social situations",
    description=__doc__,
    source=Hub(
        "allenai/social_i_qa",
        revision="537a2ec8ec565adc0b70b70752893e59e024df26",
        config="default",
        slices=halves("validation"),
        sizes={"train": 33410, "validation": 1954},
    ),
    local=Folder(slices=halves("dev"), layout=lambda row: {**row, "label": LETTERS.index(row["answer"]) + 1}),
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
