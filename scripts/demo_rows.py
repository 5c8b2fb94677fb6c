"""Write the demo's rows as files, for the commands that read rows: train.jsonl, validation.jsonl, test.jsonl."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from actshift.demo.task import make_rows
from actshift.files import write_whole

SIZES = {"train": 9_600, "validation": 1_000, "test": 2_000}


def main(folder: Annotated[Path, typer.Argument(help="Where to write them.")]) -> None:
    """Write the rows of the demo task; the splits share no expression."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, size in SIZES.items():
        rows = make_rows(split, size)  # type: ignore[arg-type]
        write_whole(folder / f"{split}.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


if __name__ == "__main__":
    typer.run(main)
