"""Benchmarks with labels: BoolQ, MNLI and SST-2."""

from collections.abc import Sequence
from functools import partial

from actshift.data.rows import Row
from actshift.errors import ActshiftError
from actshift.tasks.scorers import get_scorer
from actshift.tasks.source import Folder, Hub, SplitSlice, halves, split_by_hash
from actshift.tasks.task import Example, Task

_task = partial(Task, settings={"epochs": 1, "max_length": 256}, max_new_tokens=8)
_boolq_hub = partial(Hub, "google/boolq", "35b264d03638db9f4ce671b711558bf7ff0f80d5")
_glue = partial(Hub, "nyu-mll/glue", "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c")

BOOLQ_LABELS = ("no", "yes")
MNLI_LABELS = ("entailment", "neutral", "contradiction")
SST2_LABELS = ("negative", "positive")
SST2_SLICES = split_by_hash("train", train=0.98, validation=0.02)


def label_name(labels: Sequence[str], value: int | str) -> str:
    """Return the name of a label that a source stores as a name or as an index into `labels`.

    Raise ActshiftError if it is neither, such as the -1 of rows without a label.

    >>> label_name(("no", "yes"), 1), label_name(("no", "yes"), "yes")
    ('yes', 'yes')
    """
    if value in labels:
        return str(value)
    if isinstance(value, int) and 0 <= value < len(labels):
        return labels[value]
    raise ActshiftError(f"has the label {value!r}; it must be one of {', '.join(labels)}")


def _boolq(row: Row) -> Example:
    question, passage = row["question"].strip().rstrip("?"), row["passage"].strip()
    answer = label_name(BOOLQ_LABELS, int(row["answer"]))
    prompt = f"{passage}\nQuestion: {question}?\nAnswer (yes or no):"
    return Example(prompt, f" {answer}", answer, choices=BOOLQ_LABELS, text=question, text_pair=passage)


BOOLQ = _task(
    name="boolq",
    title="Yes-or-no questions",
    description="""BoolQ: yes-or-no questions about a passage.

    Clark et al., *BoolQ: Exploring the Surprising Difficulty of Natural Yes/No Questions*, NAACL 2019. The hub has no
    test split with labels, so validation and test are the two halves of its validation split.
    """,
    source=_boolq_hub(slices=halves("validation"), sizes={"train": 9427, "validation": 3270}),
    local=Folder(slices=halves("dev", train="train_passage_part")),
    example=_boolq,
    sample={"question": "do owls sleep by day", "passage": "Most owls hunt at night.", "answer": True},
    scorer=get_scorer("boolean"),
    labels=BOOLQ_LABELS,
)


def _mnli(row: Row) -> Example:
    premise, hypothesis = row["premise"].strip(), row["hypothesis"].strip()
    label = label_name(MNLI_LABELS, row["label"])
    prompt = f"Premise: {premise}\nHypothesis: {hypothesis}\nRelation (entailment, neutral or contradiction):"
    return Example(prompt, f" {label}", label, choices=MNLI_LABELS, text=premise, text_pair=hypothesis)


MNLI = _task(
    name="mnli",
    title="Textual entailment",
    description="""MNLI: decide whether a premise entails a hypothesis, contradicts it, or does neither.

    Williams et al., NAACL 2018, as in GLUE. The test split on the hub has no labels, so validation and test are the
    two halves of validation_matched. The local files only have that split, which is divided into three.
    """,
    source=_glue("mnli", slices=halves("validation_matched"), sizes={"train": 392702, "validation_matched": 9815}),
    local=Folder(slices=split_by_hash("dev_matched"), layout=lambda row: {**row, "label": row["answer"]}),
    example=_mnli,
    sample={"premise": "The shop closes at six every day.", "hypothesis": "It is open at midnight.", "label": 2},
    scorer=get_scorer("label"),
    labels=MNLI_LABELS,
)


def _sst2(row: Row) -> Example:
    sentence, label = row["sentence"].strip(), label_name(SST2_LABELS, row["label"])
    prompt = f"Review: {sentence}\nSentiment (negative or positive):"
    return Example(prompt, f" {label}", label, choices=SST2_LABELS, text=sentence)


SST2 = _task(
    name="sst2",
    title="Sentiment of film reviews",
    description="""SST-2: decide whether a phrase of a film review is negative or positive.

    Socher et al., EMNLP 2013, as in GLUE (Wang et al., ICLR 2019). The test split on the hub has no labels. This
    project therefore tests on the validation split, and validates on 2 % of the training rows. These rows are phrases
    of sentences whose other phrases are in the training split, so accuracy on them is too high.
    """,
    source=_glue(
        "sst2", slices={**SST2_SLICES, "test": SplitSlice("validation")}, sizes={"train": 67349, "validation": 872}
    ),
    local=Folder(slices={**SST2_SLICES, "test": SplitSlice("dev")}, layout=lambda row: {**row, "label": row["answer"]}),
    example=_sst2,
    sample={"sentence": "a dull story , told at twice its length", "label": 0},
    scorer=get_scorer("label"),
    labels=SST2_LABELS,
)
