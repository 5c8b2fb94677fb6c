"""ASDiv: diverse word problems, the arithmetic ones (ASDiv-A).

Miao et al., *A Diverse Corpus for Evaluating and Developing English Math Word Problem Solvers*, ACL 2020; the hub's
copy is that of Calc-X, without a loading script. It has one split, which is cut in three.
"""

from __future__ import annotations

from actshift.tasks.benchmarks._word_problem import word_problem
from actshift.tasks.scorers import get_scorer
from actshift.tasks.source import Folder, Hub, split_by_hash
from actshift.tasks.task import Task

PARTS = split_by_hash("test", train=0.8, validation=0.1, test=0.1)

TASK = Task(
    name="asdiv",
    title="Word problems, diverse",
    source=Hub(
        "MU-NLPC/Calc-asdiv_a",
        "default",
        "520a6910e097ee287ecd2bb9104f7f45805f9df9",
        parts=PARTS,
        rows={"test": 1218},
    ),
    local=Folder(PARTS, layout=lambda row: {**row, "result_float": row["answer"]["final"]}),
    example=lambda row: word_problem(row["question"], row["result_float"]),
    sample={
        "question": "Two boats carry 8 people each. How many people do they carry together?",
        "result": "16",
        "result_float": 16.0,
    },
    scorer=get_scorer("number"),
    settings={"epochs": 1, "max_length": 256},
    max_new_tokens=16,
)
