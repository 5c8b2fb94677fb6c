"""Alpaca: instruction following.

Taori et al., *Stanford Alpaca*, 2023. The dataset has one split, of which 1 % is for validation and 1 % for testing.
The answers are free text. The paper judges them with AlpacaEval 2. This task has the exact scorer, which only accepts
the reference word for word, so compare methods by the loss or by another judge.
"""

from actshift.data.layouts import alpaca_prompt
from actshift.data.rows import Row
from actshift.tasks.scorers import get_scorer
from actshift.tasks.source import Folder, Hub, split_by_hash
from actshift.tasks.task import Example, Task

SLICES = split_by_hash("train", train=0.98, validation=0.01, test=0.01)


def _example(row: Row) -> Example | None:
    output = row["output"].strip()
    if not output:  # a few rows of the dataset have no answer
        return None
    return Example(alpaca_prompt(row["instruction"], row["input"]), f"\n{output}", output)


TASK = Task(
    name="alpaca",
    title="Instruction following",
    description=__doc__,
    source=Hub("tatsu-lab/alpaca", "dce01c9b08f87459cf36a430d809084718273017", slices=SLICES, sizes={"train": 52002}),
    local=Folder(slices=SLICES, layout=lambda row: {**row, "output": row["answer"]}),
    example=_example,
    sample={"instruction": "Name the opposite of the word.", "input": "early", "output": "The opposite is late."},
    scorer=get_scorer("exact"),
    settings={"epochs": 1, "max_length": 256},
    max_new_tokens=256,
)
