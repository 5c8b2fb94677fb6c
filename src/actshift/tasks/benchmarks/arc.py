"""ARC: multiple-choice science questions at school level, in an easy and a hard set.

Clark et al., *Think you have Solved Question Answering? Try ARC*, 2018 (arXiv 1803.05457). The hub has three splits.
The local files have no validation split, so a tenth of the training rows is used for validation.
"""

from __future__ import annotations

from collections.abc import Mapping

from actshift.tasks.formatting import lettered_by_key
from actshift.tasks.scorers import get_scorer
from actshift.tasks.source import Folder, Hub, SplitSlice, split_by_hash, whole_splits
from actshift.tasks.task import Task


def _arc(name: str, title: str, config: str, sizes: Mapping[str, int]) -> Task:
    return Task(
        name=name,
        title=title,
        description=__doc__,
        source=Hub(
            "allenai/ai2_arc",
            revision="210d026faf9955653af8916fad021475a3f00453",
            config=config,
            slices=whole_splits(train="train", validation="validation", test="test"),
            sizes=sizes,
        ),
        local=Folder(
            slices={**split_by_hash("train", train=0.9, validation=0.1), "test": SplitSlice("test")},
            layout=lambda row: {**row, "answerKey": row["answer"]},
        ),
        example=lambda row: lettered_by_key(row["question"], row["choices"], row["answerKey"]),
        sample={
            "question": "Which of these is a source of light?",
            "choices": {"label": ["A", "B", "C", "D"], "text": ["a mirror", "a candle", "the moon", "a window"]},
            "answerKey": "B",
        },
        scorer=get_scorer("choice"),
        settings={"epochs": 1, "max_length": 256},
        max_new_tokens=8,
    )


EASY = _arc("arc_easy", "Easy science questions", "ARC-Easy", {"train": 2251, "validation": 570, "test": 2376})
CHALLENGE = _arc(
    "arc_challenge", "Hard science questions", "ARC-Challenge", {"train": 1119, "validation": 299, "test": 1172}
)
