"""SST-2: is a phrase of a film review negative or positive.

Socher et al., EMNLP 2013, as in GLUE (Wang et al., ICLR 2019). The test split of the hub has no labels, so the
validation split is the test here, touched once, and 2 % of the training rows validate [ours]. These are phrases of
sentences whose other phrases are trained on: their accuracy flatters.
"""

from __future__ import annotations

from actshift.tasks.formatting import label_name
from actshift.tasks.scorers import get_scorer
from actshift.tasks.source import Example, Folder, Hub, Row, SplitSlice, split_by_hash
from actshift.tasks.task import Task

LABELS = ("negative", "positive")


def _example(row: Row) -> Example:
    sentence, label = row["sentence"].strip(), label_name(LABELS, row["label"])
    prompt = f"Review: {sentence}\nSentiment (negative or positive):"
    return Example(prompt, f" {label}", label, choices=LABELS, text=sentence)


TASK = Task(
    name="sst2",
    title="Film reviews, sentiment",
    source=Hub(
        "nyu-mll/glue",
        "sst2",
        "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c",
        parts={**split_by_hash("train", train=0.98, validation=0.02), "test": SplitSlice("validation")},
        rows={"train": 67349, "validation": 872},
    ),
    local=Folder(
        {**split_by_hash("train", train=0.98, validation=0.02), "test": SplitSlice("dev")},
        layout=lambda row: {**row, "label": row["answer"]},
    ),
    example=_example,
    sample={"sentence": "a dull story , told at twice its length", "label": 0},
    scorer=get_scorer("label"),
    settings={"epochs": 1, "max_length": 256},
    max_new_tokens=8,
    labels=LABELS,
)
