"""Cut the rows of docs/results/encoders.md: ``python scripts/encoder_rows.py --data-dir DIR FOLDER``.

DIR holds sst2/{train,dev}.jsonl.gz and mnli/dev_matched.jsonl.gz. SST-2: 6,000 training rows and 1,000 to choose by out
of the training split, each phrase once, and the dev split to test. MNLI: its matched dev split, cut by premise into
3,001 rows to train on, 816 to choose by and 2,500 to test; the rest is left alone.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SIZES = {"sst2": (6000, 1000), "mnli": (3000, 815, 2500)}
Row = dict[str, str]


def read(path: Path) -> Iterator[tuple[dict[str, str], Any]]:
    """Yield what each row asks, and its answer."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            yield row["prompt_fields"], row["answer"]


def sst2(folder: Path) -> dict[str, list[Row]]:
    """Phrases of film reviews; of those that are there twice, one."""
    train, dev = (
        [{"text": asked["sentence"].strip(), "label": ("negative", "positive")[answer]} for asked, answer in read(path)]
        for path in (folder / "train.jsonl.gz", folder / "dev.jsonl.gz")
    )
    random.Random(0).shuffle(train)
    first: dict[str, Row] = {}
    for row in train:
        first.setdefault(row["text"], row)
    once, (size, more) = list(first.values()), SIZES["sst2"]
    return {"train": once[:size], "validation": once[size : size + more], "test": dev}


def mnli(folder: Path) -> dict[str, list[Row]]:
    """Premises with a hypothesis; all the hypotheses about a premise are on one side."""
    groups: dict[str, list[Row]] = {}
    for asked, answer in read(folder / "dev_matched.jsonl.gz"):
        row = {"text": asked["premise"].strip(), "text_pair": asked["hypothesis"].strip(), "label": answer}
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
    for name, cut in (("sst2", sst2), ("mnli", mnli)):
        for split, rows in cut(arguments.data_dir / name).items():
            path = arguments.folder / name / f"{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
            print(f"{path}  {len(rows):,} rows")


if __name__ == "__main__":
    main()
