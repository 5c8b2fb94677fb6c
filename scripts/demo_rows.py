"""Write the rows of the demo task to train.jsonl, validation.jsonl and test.jsonl in a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from actshift.demo.task import make_rows
from actshift.files import write_atomically

SIZES = {"train": 9_600, "validation": 1_000, "test": 2_000}


def main(folder: Annotated[Path, typer.Argument(help="Folder for the files.")]) -> None:
    """Write the rows of the demo task; the splits share no expression."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, size in SIZES.items():
        rows = make_rows(split, size)  # type: ignore[arg-type]
        write_atomically(folder / f"{split}.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


if __name__ == "__main__":
    typer.run(main)
