"""Write the rows of docs/results/encoders.md: ``python scripts/encoder_rows.py --data-dir DIR FOLDER``.

DIR contains sst2/{train,dev}.jsonl.gz and mnli/dev_matched.jsonl.gz.

SST-2: the training split gives 6,000 training rows and 1,000 validation rows, each phrase once. The dev split is
the test. MNLI: the matched dev split is cut by premise into 3,001 training, 816 validation and 2,500 test rows.
The remaining rows are not used.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

SIZES = {"sst2": (6000, 1000), "mnli": (3000, 815, 2500)}
Row = dict[str, str]


def read_rows(path: Path, limit: int | None = None) -> list[dict[str, Any]]:
    """Return the rows of a file, or the first `limit` of them; the name of a compressed file ends in .gz."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in islice(lines, limit)]


def write_splits(folder: Path, splits: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Write each split to a .jsonl file in `folder`, and print its path and its number of rows."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in splits.items():
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        print(f"{path}  {len(rows):,} rows")


def read(path: Path) -> Iterator[tuple[dict[str, str], Any]]:
    """Yield the prompt fields and the answer of each row."""
    for row in read_rows(path):
        yield row["prompt_fields"], row["answer"]


def sst2(folder: Path) -> dict[str, list[Row]]:
    """Return phrases of film reviews, without duplicates in training and validation rows."""
    train, dev = (
        [
            {"text": fields["sentence"].strip(), "label": ("negative", "positive")[answer]}
            for fields, answer in read(path)
        ]
        for path in (folder / "train.jsonl.gz", folder / "dev.jsonl.gz")
    )
    random.Random(0).shuffle(train)
    unique: dict[str, Row] = {}
    for row in train:
        unique.setdefault(row["text"], row)
    rows, (train_size, validation_size) = list(unique.values()), SIZES["sst2"]
    return {
        "train": rows[:train_size],
        "validation": rows[train_size : train_size + validation_size],
        "test": dev,
    }


def mnli(folder: Path) -> dict[str, list[Row]]:
    """Return premises with hypotheses; all hypotheses about a premise are in the same split."""
    groups: dict[str, list[Row]] = {}
    for fields, answer in read(folder / "dev_matched.jsonl.gz"):
        row = {"text": fields["premise"].strip(), "text_pair": fields["hypothesis"].strip(), "label": answer}
        groups.setdefault(row["text"], []).append(row)
    order = sorted(groups)
    random.Random(0).shuffle(order)
    splits: dict[str, list[Row]] = {}
    for name, size in zip(("train", "validation", "test"), SIZES["mnli"], strict=True):
        rows = splits.setdefault(name, [])
        while len(rows) < size:
            rows += groups[order.pop()]
    return splits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    for name, make_splits in (("sst2", sst2), ("mnli", mnli)):
        write_splits(arguments.folder / name, make_splits(arguments.data_dir / name))


if __name__ == "__main__":
    main()
