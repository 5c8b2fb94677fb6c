"""Every task is read from published files, and all its gold answers score as right."""

from __future__ import annotations

from itertools import islice

import pytest

from actshift.tasks import get_task, task_names
from actshift.tasks.source import SPLITS
from tests.tasks.published import ABSENT, PUBLISHED, needs_published

pytestmark = needs_published
SIZES = {
    "aqua_rat": (2728, 254, 254),
    "arc_challenge": (1023, 96, 1172),
    "arc_easy": (2030, 221, 2376),
    "boolq": (1886, 1648, 1622),
    "gsm8k": (7473, 669, 650),
    "listops": (6672, 848, 831),
    "mawps": (1898, 237, 238),
    "mnli": (7855, 958, 1002),
    "openbookqa": (4957, 500, 500),
    "social_iqa": (33410, 946, 1008),
    "sst2": (66005, 1344, 872),
    "winogrande": (9248, 626, 641),
}
JUDGED = 8000
"""The number of rows that are scored per split. Only the training split of Social IQa has more, and takes 72 s."""
SHARING = ("arc_easy", "mawps")
"""Tasks whose published splits share questions: 2 of the test split of ARC-Easy, and 61 held-out ones of MAWPS."""


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_every_gold_answer_scores_and_no_prompt_is_in_two_splits(name: str) -> None:
    task = get_task(name)
    prompts: dict[str, set[str]] = {}
    for split, size in zip(SPLITS, SIZES[name], strict=True):
        rows = [example.columns() for example in task.examples(split, PUBLISHED)]
        assert len(rows) == size
        judged = {(row["completion"], row["answer"], *row.get("choices", ())): row for row in rows}
        wrong = [row for row in islice(judged.values(), JUDGED) if not task.scorer(row["completion"], row)]
        assert wrong == []
        prompts[split] = {row["prompt"] for row in rows}
    shared = [prompts[a] & prompts[b] for a, b in (SPLITS[:2], SPLITS[1:], SPLITS[::2])]
    assert any(shared) == (name in SHARING)


@pytest.mark.parametrize("name", [name for name in task_names() if name not in ABSENT])
def test_the_first_rows_of_each_task_score(name: str) -> None:
    task = get_task(name)
    assert all(task.scorer(row["completion"], row) for row in task.load("test", PUBLISHED, limit=20))
    if task.labels:
        labels = task.load("test", PUBLISHED, limit=100, form="labels")["label"]
        assert set(labels) == set(task.labels)
