"""Multiple-choice benchmarks: AQuA-RAT, ARC, OpenBookQA, Social IQa and WinoGrande."""

import re
from collections.abc import Mapping, Sequence
from functools import partial

from actshift.data.rows import Row
from actshift.tasks.scorers import get_scorer
from actshift.tasks.source import Folder, Hub, SplitSlice, halves, split_by_hash, whole_splits
from actshift.tasks.task import Example, Task

LETTERS = "ABCDEFGHIJ"
AQUA_LETTER = re.compile(r"^\s*\(?[A-E]\)\s*")
"""The start of an option of AQuA-RAT: `A)` on the hub, and `(A)` in the copy of FLAN."""

_task = partial(Task, scorer=get_scorer("choice"), settings={"epochs": 1, "max_length": 256}, max_new_tokens=8)
_aqua = partial(Hub, "deepmind/aqua_rat", "33301c6a050c96af81f63cad5562cb5363e88971")
_openbookqa = partial(Hub, "allenai/openbookqa", "388097ea7776314e93a529163e0fea805b8a6454")
_social_iqa_hub = partial(Hub, "allenai/social_i_qa", "537a2ec8ec565adc0b70b70752893e59e024df26")
_winogrande_hub = partial(Hub, "allenai/winogrande", "01e74176c63542e6b0bcb004dcdea22d94fb67b5")


def lettered(question: str, choices: Sequence[str], answer: int) -> Example:
    """Return an example that lists choices by letter under a question. `answer` is the index of the right choice.

    >>> example = lettered("Which is a fruit?", ["oak", "pear"], 1)
    >>> example.prompt, example.completion
    ('Which is a fruit?\\nA. oak\\nB. pear\\nAnswer:', ' B')
    """
    listed = "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False))
    letter = LETTERS[answer]
    return Example(f"{question}\n{listed}\nAnswer:", f" {letter}", letter, tuple(choices))


def _science(question: str, choices: Mapping[str, Sequence[str]], key: str) -> Example:
    return lettered(f"Question: {question.strip()}", choices["text"], list(choices["label"]).index(key))


def _aqua_rat(row: Row) -> Example:
    options = [AQUA_LETTER.sub("", option) for option in row["options"]]
    choice = lettered(f"Question: {row['question'].strip()}", options, LETTERS.index(row["correct"]))
    prompt = choice.prompt.removesuffix("Answer:") + "Solution:"
    return Example(prompt, f" {row['rationale'].strip()}\nAnswer: {choice.answer}", choice.answer, choice.choices)


AQUA_RAT = _task(
    name="aqua_rat",
    title="Algebra with five choices",
    description="""AQuA-RAT: algebra with five choices, and reasoning before the answer.

    Ling et al., *Program Induction by Rationale Generation*, ACL 2017. The completion is the rationale, then the
    letter.
    """,
    source=_aqua("raw", sizes={"train": 97467, "validation": 254, "test": 254}),
    local=Folder(
        slices=whole_splits(train="train_flan_cot", validation="dev"),
        layout=lambda row: {**row, "rationale": row["answer"]["rationale"], "correct": row["answer"]["final"]},
    ),
    example=_aqua_rat,
    sample={
        "question": "If 3x + 2 = 17, what is x?",
        "options": ["A)3", "B)4", "C)5", "D)6", "E)7"],
        "rationale": "3x = 17 - 2 = 15, so x = 15 / 3 = 5.",
        "correct": "C",
    },
    settings={"epochs": 1, "max_length": 512},
    max_new_tokens=256,
)

_arc_task = partial(
    _task,
    description="""ARC: multiple-choice science questions at school level, in an easy and a hard set.

    Clark et al., *Think you have Solved Question Answering? Try ARC*, 2018 (arXiv 1803.05457). The hub has three
    splits. The local files have no validation split, so a tenth of the training rows is used for validation.
    """,
    local=Folder(
        slices={**split_by_hash("train", train=0.9, validation=0.1), "test": SplitSlice("test")},
        layout=lambda row: {**row, "answerKey": row["answer"]},
    ),
    example=lambda row: _science(row["question"], row["choices"], row["answerKey"]),
    sample={
        "question": "Which of these is a source of light?",
        "choices": {"label": ["A", "B", "C", "D"], "text": ["a mirror", "a candle", "the moon", "a window"]},
        "answerKey": "B",
    },
)
_arc_source = partial(Hub, "allenai/ai2_arc", "210d026faf9955653af8916fad021475a3f00453")
ARC_EASY = _arc_task(
    name="arc_easy",
    title="Easy science questions",
    source=_arc_source("ARC-Easy", sizes={"train": 2251, "validation": 570, "test": 2376}),
)
ARC_CHALLENGE = _arc_task(
    name="arc_challenge",
    title="Hard science questions",
    source=_arc_source("ARC-Challenge", sizes={"train": 1119, "validation": 299, "test": 1172}),
)

OPENBOOKQA = _task(
    name="openbookqa",
    title="Applied science",
    description="""OpenBookQA: questions that apply facts of elementary science.

    Mihaylov et al., *Can a Suit of Armor Conduct Electricity?*, EMNLP 2018. The prompt does not include the book of
    facts.
    """,
    source=_openbookqa("main", sizes={"train": 4957, "validation": 500, "test": 500}),
    local=Folder(
        slices=whole_splits(validation="dev"),
        layout=lambda row: {**row, "question_stem": row["question"], "answerKey": row["answer"]},
    ),
    example=lambda row: _science(row["question_stem"], row["choices"], row["answerKey"]),
    sample={
        "question_stem": "A puddle is gone by noon because the sun made the water",
        "choices": {"label": ["A", "B", "C", "D"], "text": ["freeze", "evaporate", "sink", "boil over"]},
        "answerKey": "B",
    },
)


def _social_iqa(row: Row) -> Example:
    question = f"{row['context'].strip()}\nQuestion: {row['question'].strip()}"
    return lettered(question, [row["answerA"], row["answerB"], row["answerC"]], int(row["label"]) - 1)


SOCIAL_IQA = _task(
    name="social_iqa",
    title="Social situations",
    description="""Social IQa: questions about the feelings, wishes and actions of people in a situation.

    Sap et al., *Social IQa: Commonsense Reasoning about Social Interactions*, EMNLP 2019. The hub has two splits, so
    validation and test are the two halves of its validation split. The dataset on the hub is a loading script. The
    pinned commit is its conversion to Parquet.
    """,
    source=_social_iqa_hub("default", slices=halves("validation"), sizes={"train": 33410, "validation": 1954}),
    local=Folder(slices=halves("dev"), layout=lambda row: {**row, "label": LETTERS.index(row["answer"]) + 1}),
    example=_social_iqa,
    sample={
        "context": "Robin carried the heavy bags of an old neighbour up the stairs.",
        "question": "How would you describe Robin?",
        "answerA": "helpful",
        "answerB": "careless",
        "answerC": "hungry",
        "label": "1",
    },
)


def _winogrande(row: Row) -> Example:
    question = f"Sentence: {row['sentence'].strip()}\nWhat does the blank _ stand for?"
    return lettered(question, [row["option1"], row["option2"]], int(row["answer"]) - 1)


WINOGRANDE = _task(
    name="winogrande",
    title="Fill in the blank",
    description="""WinoGrande, debiased: choose the word that fills a blank.

    Sakaguchi et al., *WinoGrande: An Adversarial Winograd Schema Challenge at Scale*, AAAI 2020. The test split on the
    hub has no answers, so validation and test are the two halves of its validation split.
    """,
    source=_winogrande_hub(
        "winogrande_debiased", slices=halves("validation"), sizes={"train": 9248, "validation": 1267}
    ),
    local=Folder(slices=halves("dev", train="train_debiased")),
    example=_winogrande,
    sample={
        "sentence": "The cup did not fit in the drawer because the _ was too small.",
        "option1": "cup",
        "option2": "drawer",
        "answer": "2",
    },
)
