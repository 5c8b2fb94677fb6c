"""WinoGrande, debiased: choose the word that fills a blank.

Sakaguchi et al., *WinoGrande: An Adversarial Winograd Schema Challenge at Scale*, AAAI 2020. The test split on the hub
has no answers, so validation and test are the two halves of its validation split.
"""

from __future__ import annotations

from actshift.data.readers import Row
from actshift.tasks.formatting import Example, lettered
from actshift.tasks.scorers import get_scorer
from actshift.tasks.source import Folder, Hub, halves
from actshift.tasks.task import Task


def _example(row: Row) -> Example:
    question = f"Sentence: {row['sentence'].strip()}\nWhat does the blank _ stand for?"
    return lettered(question, [row["option1"], row["option2"]], int(row["answer"]) - 1)


TASK = Task(
    name="winogrande",
    title="Fill in the blank",
    description=__doc__,
    source=Hub(
        "allenai/winogrande",
        revision="01e74176c63542e6b0bcb004dcdea22d94fb67b5",
        config="winogrande_debiased",
        slices=halves("validation"),
        sizes={"train": 9248, "validation": 1267},
    ),
    local=Folder(slices=halves("dev", train="train_debiased")),
    example=_example,
    sample={
        "sentence": "The cup did not fit in the drawer because the _ was too small.",
        "option1": "cup",
        "option2": "drawer",
        "answer": "2",
    },
    scorer=get_scorer("choice"),
    settings={"epochs": 1, "max_length": 256},
    max_new_tokens=8,
)
