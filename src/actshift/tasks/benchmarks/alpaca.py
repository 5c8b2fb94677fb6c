"""Alpaca: instruction tuning.

Taori et al., *Stanford Alpaca*, 2023. The hub has one split, of which 1 % validates and 1 % tests. Answers are free
text: the paper has them judged by AlpacaEval 2, and what is at hand here is the exact scorer, which says only whether
an answer is the reference word for word. Compare by the loss, or by a judge of your own.
"""

from __future__ import annotations

from actshift.tasks.scorers import get_scorer
from actshift.tasks.source import Example, Folder, Hub, Row, split_by_hash
from actshift.tasks.task import Task

PARTS = split_by_hash("train", train=0.98, validation=0.01, test=0.01)


def _example(row: Row) -> Example | None:
    given, output = row["input"].strip(), row["output"].strip()
    if not output:  # a few rows of the source have none
        return None
    material = f"### Input:\n{given}\n\n" if given else ""
    prompt = f"### Instruction:\n{row['instruction'].strip()}\n\n{material}### Response:"
    return Example(prompt, f"\n{output}", output)


TASK = Task(
    name="alpaca",
    title="Instructions",
    source=Hub(
        "tatsu-lab/alpaca",
        None,
        "dce01c9b08f87459cf36a430d809084718273017",
        parts=PARTS,
        rows={"train": 52002},
    ),
    local=Folder(PARTS, layout=lambda row: {**row, "output": row["answer"]}),
    example=_example,
    sample={
        "instruction": "Name the opposite of the word.",
        "input": "early",
        "output": "The opposite of early is late.",
    },
    scorer=get_scorer("exact"),
    settings={"epochs": 1, "max_length": 256},
    max_new_tokens=256,
)
