"""BoolQ: yes-or-no questions about a passage.

Clark et al., *BoolQ: Exploring the Surprising Difficulty of Natural Yes/No Questions*, NAACL 2019. The hub has no test
split with labels, so validation and test are the two halves of its validation split.
"""

from __future__ import annotations

from actshift.data.readers import Row
from actshift.tasks.formatting import Example, label_name
from actshift.tasks.scorers import get_scorer
from actshift.tasks.source import Folder, Hub, halves
from actshift.tasks.task import Task

LABELS = ("no", "yes")


def _example(row: Row) -> Example:
    question, passage = row["question"].strip().rstrip("?"), row["passage"].strip()
    answer = label_name(LABELS, int(row["answer"]))
    prompt = f"{passage}\nQuestion: {question}?\nAnswer (yes or no):"
    return Example(prompt, f" {answer}", answer, text=question, text_pair=passage)


TASK = Task(
    name="boolq",
    title="Yes-or-no questions",
    description=__doc__,
    source=Hub(
        "google/boolq",
        revision="35b264d03638db9f4ce671b711558bf7ff0f80d5",
        slices=halves("validation"),
        sizes={"train": 9427, "validation": 3270},
    ),
    local=Folder(slices=halves("dev", train="train_passage_part")),
    example=_example,
    sample={"question": "do owls sleep by day", "passage": "Most owls hunt at night.", "answer": True},
    scorer=get_scorer("boolean"),
    settings={"epochs": 1, "max_length": 256},
    max_new_tokens=8,
    labels=LABELS,
)
