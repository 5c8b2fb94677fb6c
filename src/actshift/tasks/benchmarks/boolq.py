"""BoolQ: yes or no, by a passage.

Clark et al., *BoolQ: Exploring the Surprising Difficulty of Natural Yes/No Questions*, NAACL 2019. The hub has no
labelled test split: validation and test are halves of its validation split.
"""

from __future__ import annotations

from actshift.tasks.formatting import label_name
from actshift.tasks.scorers import get_scorer
from actshift.tasks.source import Example, Folder, Hub, Row, SplitSlice, split_by_hash
from actshift.tasks.task import Task

LABELS = ("no", "yes")


def _example(row: Row) -> Example:
    question, passage = row["question"].strip().rstrip("?"), row["passage"].strip()
    answer = label_name(LABELS, int(row["answer"]))
    prompt = f"{passage}\nQuestion: {question}?\nAnswer (yes or no):"
    return Example(prompt, f" {answer}", answer, text=question, text_pair=passage)


TASK = Task(
    name="boolq",
    title="Yes or no, by a passage",
    source=Hub(
        "google/boolq",
        None,
        "35b264d03638db9f4ce671b711558bf7ff0f80d5",
        parts={"train": SplitSlice("train"), **split_by_hash("validation", validation=0.5, test=0.5)},
        rows={"train": 9427, "validation": 3270},
    ),
    local=Folder({"train": SplitSlice("train_passage_part"), **split_by_hash("dev", validation=0.5, test=0.5)}),
    example=_example,
    sample={
        "question": "do owls sleep by day",
        "passage": "Most owls hunt at night and rest during the day.",
        "answer": True,
    },
    scorer=get_scorer("boolean"),
    settings={"epochs": 1, "max_length": 256},
    max_new_tokens=8,
    labels=LABELS,
)
