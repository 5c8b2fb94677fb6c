"""MNLI: does a premise entail a hypothesis, contradict it, or neither.

Williams et al., NAACL 2018, as in GLUE. The hub's test split has no labels: validation and test are halves of
validation_matched. The local files have that split alone, which is cut in three.
"""

from __future__ import annotations

from actshift.tasks.formatting import label_name
from actshift.tasks.scorers import get_scorer
from actshift.tasks.source import Example, Folder, Hub, Row, SplitSlice, split_by_hash
from actshift.tasks.task import Task

LABELS = ("entailment", "neutral", "contradiction")


def _example(row: Row) -> Example:
    premise, hypothesis = row["premise"].strip(), row["hypothesis"].strip()
    label = label_name(LABELS, row["label"])
    prompt = f"Premise: {premise}\nHypothesis: {hypothesis}\nRelation (entailment, neutral or contradiction):"
    return Example(prompt, f" {label}", label, choices=LABELS, text=premise, text_pair=hypothesis)


TASK = Task(
    name="mnli",
    title="Entailment of sentences",
    source=Hub(
        "nyu-mll/glue",
        "mnli",
        "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c",
        parts={"train": SplitSlice("train"), **split_by_hash("validation_matched", validation=0.5, test=0.5)},
        rows={"train": 392702, "validation_matched": 9815},
    ),
    local=Folder(
        split_by_hash("dev_matched", train=0.8, validation=0.1, test=0.1),
        layout=lambda row: {**row, "label": row["answer"]},
    ),
    example=_example,
    sample={
        "premise": "The shop closes at six every day.",
        "hypothesis": "The shop is open at midnight.",
        "label": 2,
    },
    scorer=get_scorer("label"),
    settings={"epochs": 1, "max_length": 256},
    max_new_tokens=8,
    labels=LABELS,
)
