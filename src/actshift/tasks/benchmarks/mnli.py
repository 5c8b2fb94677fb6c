"""MNLI: decide whether a premise entails a hypothesis, contradicts it, or does neither.

Williams et al., NAACL 2018, as in GLUE. The test split on the hub has no labels, so validation and test are the two
halves of validation_matched. The local files only have that split, which is divided into three.
"""

from __future__ import annotations

from actshift.data.readers import Row
from actshift.tasks.formatting import Example, label_name
from actshift.tasks.scorers import get_scorer
from actshift.tasks.source import Folder, Hub, halves, split_by_hash
from actshift.tasks.task import Task

LABELS = ("entailment", "neutral", "contradiction")


def _example(row: Row) -> Example:
    premise, hypothesis = row["premise"].strip(), row["hypothesis"].strip()
    label = label_name(LABELS, row["label"])
    prompt = f"Premise: {premise}\nHypothesis: {hypothesis}\nRelation (entailment, neutral or contradiction):"
    return Example(prompt, f" {label}", label, choices=LABELS, text=premise, text_pair=hypothesis)


TASK = Task(
    name="mnli",
    title="Textual entailment",
    description=__doc__,
    source=Hub(
        "nyu-mll/glue",
        revision="bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c",
        config="mnli",
        slices=halves("validation_matched"),
        sizes={"train": 392702, "validation_matched": 9815},
    ),
    local=Folder(slices=split_by_hash("dev_matched"), layout=lambda row: {**row, "label": row["answer"]}),
    example=_example,
    sample={"premise": "The shop closes at six every day.", "hypothesis": "It is open at midnight.", "label": 2},
    scorer=get_scorer("label"),
    settings={"epochs": 1, "max_length": 256},
    max_new_tokens=8,
    labels=LABELS,
)
