"""OpenBookQA: questions that apply facts of elementary science.

Mihaylov et al., *Can a Suit of Armor Conduct Electricity?*, EMNLP 2018. The prompt does not include the book of
facts.
"""

from __future__ import annotations

from actshift.tasks.formatting import lettered_by_key
from actshift.tasks.scorers import get_scorer
from actshift.tasks.source import Folder, Hub, whole_splits
from actshift.tasks.task import Task

TASK = Task(
    name="openbookqa",
    title="Applied science",
    description=__doc__,
    source=Hub(
        "allenai/openbookqa",
        revision="388097ea7776314e93a529163e0fea805b8a6454",
        config="main",
        slices=whole_splits(train="train", validation="validation", test="test"),
        sizes={"train": 4957, "validation": 500, "test": 500},
    ),
    local=Folder(
        slices=whole_splits(train="train", validation="dev", test="test"),
        layout=lambda row: {**row, "question_stem": row["question"], "answerKey": row["answer"]},
    ),
    example=lambda row: lettered_by_key(row["question_stem"], row["choices"], row["answerKey"]),
    sample={
        "question_stem": "A puddle is gone by noon because the sun made the water",
        "choices": {"label": ["A", "B", "C", "D"], "text": ["freeze", "evaporate", "sink", "boil over"]},
        "answerKey": "B",
    },
    scorer=get_scorer("choice"),
    settings={"epochs": 1, "max_length": 256},
    max_new_tokens=8,
)
