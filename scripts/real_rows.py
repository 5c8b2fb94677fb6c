"""Write the rows of docs/results/real.md: ``python scripts/real_rows.py --data-dir DIR FOLDER``.

DIR contains mawps/{train,dev,test}.jsonl.gz and text_novels/train.jsonl.gz. Each row has a prompt, a completion, and
the choices that the task allows.

ListOps: expressions of 4 to 12 tokens, written without spaces, and their value. MAWPS: the operator of a word problem
whose equation has exactly one. Problems that are equal apart from numbers and names are in the same split. Authors: the
author of a sentence of 14 to 22 words; the books of the test are not in the other splits.
"""

from __future__ import annotations

import argparse
import random
import re
from itertools import islice
from pathlib import Path
from typing import Any

from encoder_rows import read_rows, write_splits

from actshift.tasks.benchmarks.listops import stream

SIZES = {"listops": (2000, 300, 1000), "mawps": (512, 200, 500), "authors": (800, 300, 1000)}
"""Rows of the training, validation and test split of each task."""
OPERATORS = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide"}
BOOKS = {
    "Conrad": (("Conrad_Almayer_1895", "Conrad_Nostromo_1904"), "Conrad_Rover_1923"),
    "Dickens": (("Dickens_Bleak_1853", "Dickens_Oliver_1839"), "Dickens_Expectations_1861"),
    "Haggard": (("Haggard_Mines_1885", "Haggard_She_1887"), "Haggard_Sheallan_1921"),
    "James": (("James_Ambassadors_1903", "James_Tragic_1890"), "James_Roderick_1875"),
    "Lawrence": (("Lawrence_Peacock_1911", "Lawrence_Women_1920"), "Lawrence_Serpent_1926"),
}
"""The books for training and validation, and the book for the test, of each author."""
LENGTHS = range(14, 23)  # words of a sentence
Row = dict[str, Any]


def listops() -> list[list[Row]]:
    """Return the first distinct expressions of one seeded stream."""
    expressions = stream(seed=0, max_args=5, min_length=3, max_length=13)
    digits = list("0123456789")
    rows = [
        {"prompt": f"{drawn.tokens.replace(' ', '')}=", "completion": str(drawn.value), "choices": digits}
        for drawn in islice(expressions, sum(SIZES["listops"]))
    ]
    train, validation, _ = SIZES["listops"]
    return [rows[:train], rows[train : train + validation], rows[train + validation :]]


def mawps(folder: Path) -> list[list[Row]]:
    """Return word problems with one operator; problems with the same words are in the same split."""
    groups: dict[str, list[Row]] = {}
    for row in (row for split in ("train", "dev", "test") for row in read_rows(folder / "mawps" / f"{split}.jsonl.gz")):
        operators = re.findall(r"(?<=[\d)])[-+*/]", row["answer"]["equation"])
        if len(operators) != 1:
            continue
        question = " ".join(row["prompt_fields"]["question"].split())
        words = " ".join(re.sub(r"\d[\d.,]*|(?<!^)\b[A-Z]\w+", "_", question).split()[1:])
        completion = f" {OPERATORS[operators[0]]}"
        choices = list(OPERATORS.values())
        groups.setdefault(words, []).append(
            {"prompt": f"{question}\nOperation:", "completion": completion, "choices": choices}
        )
    order = sorted(groups)
    random.Random(0).shuffle(order)
    rows = [row for words in order for row in groups[words]]
    train, validation, test = SIZES["mawps"]
    bounds = [_group_end(order, groups, size) for size in (train, train + validation, train + validation + test)]
    return [rows[: bounds[0]], rows[bounds[0] : bounds[1]], rows[bounds[1] : bounds[2]]]


def _group_end(order: list[str], groups: dict[str, list[Row]], size: int) -> int:
    """Return the number of rows in the first groups that together have at least `size` rows."""
    total = 0
    for words in order:
        if total >= size:
            break
        total += len(groups[words])
    return total


def sentences(text: str) -> list[str]:
    """Return the sentences of a text whose length is in `LENGTHS`, without quotation marks and footnotes.

    >>> sentences("No. It was the best of times, it was the worst of times, it was the age of wisdom. Yes!")
    ['It was the best of times, it was the worst of times, it was the age of wisdom.']
    """
    found = re.findall(r"(?<=[.!?] )[A-Z][^.!?\"“”*_\[\]]+[.!?]", " ".join(text.split()))
    return [sentence for sentence in found if len(sentence.split()) in LENGTHS]


def authors(folder: Path) -> list[list[Row]]:
    """Return sentences of each author in equal numbers; the test sentences are from a book of their own."""
    texts: dict[str, list[str]] = {}
    for row in read_rows(folder / "text_novels" / "train.jsonl.gz"):
        texts.setdefault(row["prompt_fields"]["book"], []).append(row["prompt_fields"]["text"])
    sizes = [size // len(BOOKS) for size in SIZES["authors"]]
    splits: list[list[Row]] = [[], [], []]
    rng = random.Random(0)
    for author, (books, test_book) in BOOKS.items():
        for wanted, sources in ((sizes[:2], books), (sizes[2:], (test_book,))):
            known = list(dict.fromkeys(line for book in sources for text in texts[book] for line in sentences(text)))
            rng.shuffle(known)
            for split, size in zip(splits if len(wanted) == 2 else splits[2:], wanted, strict=False):
                rows, known = known[:size], known[size:]
                choices = list(BOOKS)
                split += [
                    {"prompt": f"{line}\nAuthor:", "completion": f" {author}", "choices": choices} for line in rows
                ]
    for split in splits:
        rng.shuffle(split)
    return splits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    tasks = {"listops": listops(), "mawps": mawps(arguments.data_dir), "authors": authors(arguments.data_dir)}
    for task, splits in tasks.items():
        names = ("train", "validation", "test")
        write_splits(arguments.folder / task, dict(zip(names, splits, strict=True)))


if __name__ == "__main__":
    main()
