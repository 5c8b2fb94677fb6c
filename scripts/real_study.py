"""The comparisons of docs/results/real.md, and the records of their cells in docs/results/real/."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from actshift.compare.cell import BASE, RECORD
from actshift.compare.settings import CompareSettings
from actshift.files import write_atomically

SCRIPTS = Path(__file__).parent
RECORDS = SCRIPTS.parent / "docs" / "results" / "real"
METHODS = SCRIPTS / "real_methods.yaml"
MAIN = ("full", "lora", "reft", "post_mlp", "linear", "nonlinear", "rank1", "vector", "joint", "joint_free")
FEW = ("lora", "reft", "nonlinear", "vector", "joint")
RANKS = ("rank2", "rank4", "lora1", "lora2", "lora4")


@dataclass(frozen=True)
class Study:
    """One comparison: a task, its methods, and the settings that all of them share.

    Args:
        limit: number of training rows; None for all of them.
        common: settings of the training. `save_steps` gives two or three evaluations of the validation loss.
    """

    name: str
    task: str
    methods: Sequence[str]
    common: dict[str, Any] = field(default_factory=lambda: {})
    limit: int | None = None
    seeds: int = 3

    def settings(self, model: Path, rows: Path, out: Path, jobs: int, precision: str) -> CompareSettings:
        """Write the training rows and the methods to `out`, and return the settings of the comparison."""
        folder = out / "studies" / self.name
        folder.mkdir(parents=True, exist_ok=True)
        lines = (rows / self.task / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        write_atomically(folder / "train.jsonl", "".join(lines[: self.limit]))
        chosen = yaml.safe_load(METHODS.read_text(encoding="utf-8"))
        chosen["common"] |= self.common
        chosen["methods"] = {name: chosen["methods"][name] for name in self.methods}
        write_atomically(folder / "methods.yaml", yaml.safe_dump(chosen, sort_keys=False))
        return CompareSettings(
            model=str(model),
            data=str(folder / "train.jsonl"),
            eval_data=str(rows / self.task / "validation.jsonl"),
            test_data=str(rows / self.task / "test.jsonl"),
            methods=(str(folder / "methods.yaml"),),
            seeds=self.seeds,
            out=str(self.table(out)),
            chat=False,
            group_by_length=True,
            eval_batch_size=64,
            jobs=jobs,
            precision=precision,
        )

    def table(self, out: Path) -> Path:
        """Return the folder of the comparison. Studies of the same task and size share one, and so their cells."""
        return out / (self.task if self.limit is None else f"{self.task}-{self.limit}")


_LISTOPS = {"epochs": 1, "batch_size": 16, "gradient_accumulation": 1, "save_steps": 42}  # 125 steps
_MAWPS = {"max_steps": 64, "batch_size": 8, "gradient_accumulation": 1, "save_steps": 22}
_AUTHORS = {"epochs": 1, "batch_size": 8, "gradient_accumulation": 1, "save_steps": 34}  # 100 steps
STUDIES = {
    "smollm2": (
        Study("listops", "listops", MAIN, _LISTOPS),
        Study("mawps", "mawps", MAIN, _MAWPS),
        Study("authors", "authors", MAIN, _AUTHORS),
        Study("mawps-32", "mawps", FEW, _MAWPS, limit=32),
        Study("mawps-128", "mawps", FEW, _MAWPS, limit=128),
        Study("ranks", "listops", RANKS, _LISTOPS),
        Study("five-seeds", "listops", ("nonlinear", "lora", "joint", "reft"), _LISTOPS, seeds=5),
    ),
    "gemma3": (Study("listops", "listops", ("full", "lora", "reft", "nonlinear"), _LISTOPS | {"max_steps": 63}),),
}
"""The comparisons of each model in order of importance. Few rows train for as many steps as all of them."""


def import_records(model: str, study: Study, out: Path) -> None:
    """Copy the committed records of a study into its comparison, so that their cells are not repeated."""
    table = study.table(out)
    for record in _committed(model, table.name).rglob("*.json"):
        cell = table / "cells" / record.relative_to(_committed(model, table.name)).with_suffix("")
        if not (cell / RECORD).exists():
            (table / "rows").mkdir(parents=True, exist_ok=True)
            cell.mkdir(parents=True, exist_ok=True)
            write_atomically(cell / RECORD, record.read_text(encoding="utf-8"))


def export_records(model: str, study: Study, out: Path) -> None:
    """Copy the records of a study to docs/results/real, without paths of this machine."""
    table = study.table(out)
    for record in (table / "cells").rglob(RECORD):
        values = json.loads(record.read_text(encoding="utf-8"))
        values["made_with"]["model"] = model
        text = json.dumps(values, ensure_ascii=False) + "\n"
        path = _committed(model, table.name) / f"{record.parent.relative_to(table / 'cells')}.json"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, text)


def read_records(model: str, table: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the committed records of a comparison: by method, and then by cell, such as `lr-0.002-seed-1`."""
    records: dict[str, dict[str, dict[str, Any]]] = {}
    for path in sorted(_committed(model, table).rglob("*.json")):
        method = BASE if path.parent == _committed(model, table) else path.parent.name
        records.setdefault(method, {})[path.stem] = json.loads(path.read_text(encoding="utf-8"))
    return records


def _committed(model: str, table: str) -> Path:
    return RECORDS / model / table
