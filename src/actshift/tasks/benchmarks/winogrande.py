"""WinoGrande, debiased: which of two words fills the blank.

Sakaguchi et al., *WinoGrande: An Adversarial Winograd Schema Challenge at Scale*, AAAI 2020. The test split of the
hub has no answers: validation and test are halves of its validation split.
"""

from __future__ import annotations

from actshift.tasks.formatting import lettered
from actshift.tasks.scorers import get_scorer
from actshift.tasks.source import Example, Folder, Hub, Row, SplitSlice, split_by_hash
from actshift.tasks.task import Task


def _example(row: Row) -> Example:
    question = f"Sentence: {row['sentence'].strip()}\nWhat does the blank _ stand for?"
    return lettered(question, [row["option1"], row["option2"]], int(row["answer"]) - 1)


TASK = Task(
    name="winogrande",
    title="Which word fits a blank",
    source=Hub(
        "allenai/winogrande",
        "winogrande_debiased",
        "01e74176c63542e6b0bcb004dcdea22d94fb67b5",
        parts={"train": SplitSlice("train"), **split_by_hash("validation", validation=0.5, test=0.5)},
        rows={"train": 9248, "validation": 1267},
    ),
    local=Folder({"train": SplitSlice("train_debiased"), **split_by_hash("dev", validation=0.5, test=0.5)}),
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
