"""ARC-Easy: the easy questions of the AI2 Reasoning Challenge, at school's level of science.

Clark et al., *Think you have Solved Question Answering? Try ARC*, 2018 (arXiv 1803.05457). The hub has three splits;
the local files lack the validation split, for which a tenth of the training rows is cut off.
"""

from __future__ import annotations

from actshift.tasks.benchmarks._science import science, to_hub
from actshift.tasks.parts import Part, cut
from actshift.tasks.scorers import get_scorer
from actshift.tasks.source import Folder, Hub
from actshift.tasks.task import Task

TASK = Task(
    name="arc_easy",
    title="Science, easy",
    source=Hub(
        "allenai/ai2_arc",
        "ARC-Easy",
        "210d026faf9955653af8916fad021475a3f00453",
        parts={"train": Part("train"), "validation": Part("validation"), "test": Part("test")},
        rows={"train": 2251, "validation": 570, "test": 2376},
    ),
    local=Folder({**cut("train", train=0.9, validation=0.1), "test": Part("test")}, layout=to_hub),
    example=science,
    sample={
        "question": "Which of these is a source of light?",
        "choices": {"label": ["A", "B", "C", "D"], "text": ["a mirror", "a candle", "the moon", "a window"]},
        "answerKey": "B",
    },
    scorer=get_scorer("choice"),
    settings={"epochs": 1, "max_length": 256},
    max_new_tokens=8,
)
