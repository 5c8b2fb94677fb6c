"""SST-2: decide whether a phrase of a film review is negative or positive.

Socher et al., EMNLP 2013, as in GLUE (Wang et al., ICLR 2019). The test split on the hub has no labels. This
project therefore tests on the validation split, and validates on 2 % of the training rows. These rows are phrases of
sentences whose other phrases are in the training split, so accuracy on them is too high.
"""

from __future__ import annotations

from actshift.data.readers import Row
from actshift.tasks.formatting import Example, label_name
from actshift.tasks.scorers import get_scorer
from actshift.tasks.source import Folder, Hub, SplitSlice, split_by_hash
from actshift.tasks.task import Task

LABELS = ("negative", "positive")


def _example(row: Row) -> Example:
    sentence, label = row["sentence"].strip(), label_name(LABELS, row["label"])
    prompt = f"Review: {sentence}\nSentiment (negative or positive):"
    return Example(prompt, f" {label}", label, choices=LABELS, text=sentence)


TASK = Task(
    name="sst2",
    title="Sentiment of film reviews",
    description=__doc__,
    source=Hub(
        "nyu-mll/glue",
        revision="bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c",
        config="sst2",
        slices={**split_by_hash("train", train=0.98, validation=0.02), "test": SplitSlice("validation")},
        sizes={"train": 67349, "validation": 872},
    ),
    local=Folder(
        slices={**split_by_hash("train", train=0.98, validation=0.02), "test": SplitSlice("dev")},
        layout=lambda row: {**row, "label": row["answer"]},
    ),
    example=_example,
    sample={"sentence": "a dull story , told at twice its length", "label": 0},
    scorer=get_scorer("label"),
    settings={"epochs": 1, "max_length": 256},
    max_new_tokens=8,
    labels=LABELS,
)
