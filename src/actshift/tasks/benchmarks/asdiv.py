"""ASDiv: diverse word problems, of which this task has the arithmetic ones (ASDiv-A).

Miao et al., *A Diverse Corpus for Evaluating and Developing English Math Word Problem Solvers*, ACL 2020. The copy on
the hub is from Calc-X and needs no loading script. Its only split is divided into three.
"""

from __future__ import annotations

from actshift.tasks.formatting import word_problem
from actshift.tasks.scorers import get_scorer
from actshift.tasks.source import Folder, Hub, split_by_hash
from actshift.tasks.task import Task

SLICES = split_by_hash("test")

TASK = Task(
    name="asdiv",
    title="Diverse word problems",
    description=__doc__,
    source=Hub(
        "MU-NLPC/Calc-asdiv_a",
        revision="520a6910e097ee287ecd2bb9104f7f45805f9df9",
        config="default",
        slices=SLICES,
        sizes={"test": 1218},
    ),
    local=Folder(slices=SLICES, layout=lambda row: {**row, "result_float": row["answer"]["final"]}),
    example=lambda row: word_problem(row["question"], row["result_float"]),
    sample={"question": "Two boats carry 8 people each. How many do they carry?", "result": "16", "result_float": 16.0},
    scorer=get_scorer("number"),
    settings={"epochs": 1, "max_length": 256},
)
