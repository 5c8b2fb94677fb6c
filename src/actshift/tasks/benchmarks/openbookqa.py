"""OpenBookQA: elementary science facts, applied.

Mihaylov et al., *Can a Suit of Armor Conduct Electricity?*, EMNLP 2018; the main set, without its book of facts.
"""

from __future__ import annotations

from actshift.tasks.benchmarks._science import stem, to_hub
from actshift.tasks.scorers import get_scorer
from actshift.tasks.source import Folder, Hub, SplitSlice
from actshift.tasks.task import Task

TASK = Task(
    name="openbookqa",
    title="Science, applied",
    source=Hub(
        "allenai/openbookqa",
        "main",
        "388097ea7776314e93a529163e0fea805b8a6454",
        parts={"train": SplitSlice("train"), "validation": SplitSlice("validation"), "test": SplitSlice("test")},
        rows={"train": 4957, "validation": 500, "test": 500},
    ),
    local=Folder(
        {"train": SplitSlice("train"), "validation": SplitSlice("dev"), "test": SplitSlice("test")},
        layout=to_hub,
    ),
    example=stem,
    sample={
        "question_stem": "A puddle is gone by noon because the sun made the water",
        "choices": {"label": ["A", "B", "C", "D"], "text": ["freeze", "evaporate", "sink", "boil over"]},
        "answerKey": "B",
    },
    scorer=get_scorer("choice"),
    settings={"epochs": 1, "max_length": 256},
    max_new_tokens=8,
)
