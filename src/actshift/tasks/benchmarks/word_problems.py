"""Word problems whose answer is a number: ASDiv, GSM8K, MAWPS and SVAMP."""

import re
from decimal import Decimal
from functools import partial

from actshift.data.rows import Row
from actshift.tasks.scorers import get_scorer
from actshift.tasks.scorers.number import plain_decimal
from actshift.tasks.source import Folder, Hub, halves, split_by_hash, whole_splits
from actshift.tasks.task import Example, Task

ANNOTATION = re.compile(r"<<[^<>]*>>")
MAX_DECIMALS = 6  # kept in a completion; a model cannot learn the digits after them

_task = partial(Task, scorer=get_scorer("number"), settings={"epochs": 1, "max_length": 256})


def number_text(value: str | float) -> str:
    """Return a number without thousands separators or trailing zeros, rounded to `MAX_DECIMALS` decimals.

    >>> [number_text(value) for value in (12.0, "1,080", 1.8333333333333335, -0.5, "34.720", 2400000.0)]
    ['12', '1080', '1.833333', '-0.5', '34.72', '2400000']
    """
    return plain_decimal(round(Decimal(str(value).replace(",", "").strip()), MAX_DECIMALS))


def _problem(question: str, answer: str | float) -> Example:
    number = number_text(answer)
    return Example(f"Question: {question.strip()}\nAnswer:", f" {number}", number)


_asdiv = partial(Hub, "MU-NLPC/Calc-asdiv_a", "520a6910e097ee287ecd2bb9104f7f45805f9df9")
_gsm8k_hub = partial(Hub, "openai/gsm8k", "740312add88f781978c0658806c59bc2815b9866")
_svamp = partial(Hub, "ChilleD/SVAMP", "5e0bf1e5e7c0e9c4bc39180d224f41f3f801b7ef")

ASDIV = _task(
    name="asdiv",
    title="Diverse word problems",
    description="""ASDiv: diverse word problems, of which this task has the arithmetic ones (ASDiv-A).

    Miao et al., *A Diverse Corpus for Evaluating and Developing English Math Word Problem Solvers*, ACL 2020. The copy
    on the hub is from Calc-X and needs no loading script. Its only split is divided into three.
    """,
    source=_asdiv("default", slices=split_by_hash("test"), sizes={"test": 1218}),
    local=Folder(slices=split_by_hash("test"), layout=lambda row: {**row, "result_float": row["answer"]["final"]}),
    example=lambda row: _problem(row["question"], row["result_float"]),
    sample={"question": "Two boats carry 8 people each. How many do they carry?", "result": "16", "result_float": 16.0},
)


def _gsm8k(row: Row) -> Example:
    solution = ANNOTATION.sub("", row["answer"]).strip()
    answer = number_text(solution.rpartition("####")[2])
    return Example(f"Question: {row['question'].strip()}\nAnswer:", f" {solution}", answer)


GSM8K = _task(
    name="gsm8k",
    title="Grade-school maths",
    description="""GSM8K: grade-school maths problems with worked solutions.

    Cobbe et al., *Training Verifiers to Solve Math Word Problems*, 2021 (arXiv 2110.14168). The hub has two splits, so
    validation and test are the two halves of its test split. The completion is the worked solution without the
    calculator annotations such as ``<<48/2=24>>``. It ends with ``#### 72``.
    """,
    source=_gsm8k_hub("main", slices=halves("test"), sizes={"train": 7473, "test": 1319}),
    local=Folder(slices=halves("test"), layout=lambda row: {**row, "answer": row["answer"]["text"]}),
    example=_gsm8k,
    sample={
        "question": "A box holds 6 eggs. How many eggs are in 3 boxes, if 2 are broken and thrown away?",
        "answer": "The boxes hold 6 * 3 = <<6*3=18>>18 eggs.\nOf these, 18 - 2 = <<18-2=16>>16 are left.\n#### 16",
    },
    settings={"epochs": 3, "max_length": 256},
    max_new_tokens=256,
)


def _mawps(row: Row) -> Example:
    numbers = str(row["Numbers"]).split()
    question = re.sub(r"N_(\d+)", lambda match: number_text(numbers[int(match[1])]), row["Question"])
    return _problem(question, row["Answer"])


MAWPS = _task(
    name="mawps",
    title="Word problems",
    description="""MAWPS: word problems with one or a few steps.

    Koncel-Kedziorski et al., *MAWPS: A Math Word Problem Repository*, NAACL 2016. The only split on the hub is divided
    into three. It has `N_00` in place of each number in a question. The local files are the published split of
    LLM-Adapters. Of its 475 held-out questions, 61 are also training questions.
    """,
    source=Hub(
        "mwpt5/MAWPS", "5769dc9a31ea36eaeaab1f1e0aa1a54b6c08d804", slices=split_by_hash("train"), sizes={"train": 1772}
    ),
    local=Folder(
        slices=whole_splits(validation="dev"),
        layout=lambda row: {"Question": row["question"], "Numbers": "", "Answer": row["answer"]["final"]},
    ),
    example=_mawps,
    sample={"Question": "Ada had N_00 stamps and sold N_01 . How many are left ?", "Numbers": "9.0 4.0", "Answer": 5.0},
    settings={"epochs": 3, "max_length": 256},
)

SVAMP = _task(
    name="svamp",
    title="Tricky word problems",
    description="""SVAMP: word problems with misleading wording.

    Patel et al., *Are NLP Models really able to Solve Simple Math Word Problems?*, NAACL 2021. The hub has two splits,
    so validation and test are the two halves of its test split.
    """,
    source=_svamp(slices=halves("test"), sizes={"train": 700, "test": 300}),
    local=Folder(
        slices=halves("test"),
        layout=lambda row: {"Body": "", "Question": row["question"], "Answer": row["answer"]["final"]},
    ),
    example=lambda row: _problem(f"{row['Body'].strip()} {row['Question'].strip()}", row["Answer"]),
    sample={
        "Body": "Ben has 7 red pens and 5 blue pens. He bought 2 books.",
        "Question": "How many more red pens than blue pens does he have?",
        "Answer": "2",
    },
)
