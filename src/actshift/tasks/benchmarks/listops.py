"""ListOps of length 64: nested list operations over digits, generated.

Nangia and Bowman, *ListOps: A Diagnostic Dataset for Latent Tree Learning*, 2018 (arXiv 1804.06028), by the grammar
of the Long Range Arena (Tay et al., 2021). The hub's set of length 64 that the paper names could not be looked at:
the least length and the numbers of rows (those of the set of length 1,000) are [ours]. Expressions are of
17 to 63 tokens. The local file is spinn's test set, cut in three, without what is longer than 64 tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from actshift.tasks.listops import stream
from actshift.tasks.scorers import get_scorer
from actshift.tasks.source import SPLITS, Example, Folder, Row, SplitSlice, split_by_hash
from actshift.tasks.task import Task

DEPTH, ARGUMENTS, MIN_LENGTH, MAX_LENGTH = 10, 10, 16, 64
ROWS = {"train": 96_000, "validation": 2_000, "test": 2_000}
SIDES = split_by_hash("all", train=0.8, validation=0.1, test=0.1)
"""Where an expression belongs, whichever split is drawn for: no expression is in two of them."""


class Generated:
    """Expressions from one seeded stream, without end, of which each split keeps the first that are on its side."""

    parts: Mapping[str, SplitSlice] = {split: SplitSlice(split) for split in SPLITS}
    rows: Mapping[str, int] = ROWS
    named = "generated, without a source"

    def read(self, task: str, split: str) -> Iterator[Row]:
        """Yield the rows of `split`, each drawn when it is asked for, about 6,000 a second."""
        mine = (
            drawn for drawn in stream(0, DEPTH, ARGUMENTS, MIN_LENGTH, MAX_LENGTH) if SIDES[split].takes(drawn.tokens)
        )
        for drawn in islice(mine, ROWS[split]):
            yield {"tokens": drawn.tokens, "value": drawn.value}

    def where(self, task: str, split: str) -> str:
        """Name the split."""
        return f"{task}, generated, split {split}"


def _layout(row: dict[str, Any]) -> Row | None:
    return {"tokens": row["tokens"], "value": row["answer"]} if row["length"] <= MAX_LENGTH else None


TASK = Task(
    name="listops",
    title="Operations on digits",
    source=Generated(),
    local=Folder(split_by_hash("spinn_test_d20s", train=0.8, validation=0.1, test=0.1), layout=_layout),
    example=lambda row: Example(f"{row['tokens']}\nValue:", f" {row['value']}", str(row["value"])),
    sample={"tokens": "[MAX 2 9 [MIN 4 7 ] 0 ]", "value": 9},
    scorer=get_scorer("number"),
    settings={"epochs": 1, "max_length": 512},
    max_new_tokens=8,
)
