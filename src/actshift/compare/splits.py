"""The training, validation and test rows of a comparison, read from their sources or cut from one source."""

from __future__ import annotations

import hashlib
import json
import random
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from actshift.compare.settings import CompareSettings
from actshift.data import LABELLED, LANGUAGE, PREFERENCES, PROMPTS, check_rows
from actshift.data.rows import parse_sources
from actshift.errors import ActshiftError
from actshift.files import write_atomically
from actshift.training import TrainSettings
from actshift.training.data import explicit_objective, read_rows
from actshift.training.objectives import Objective

if TYPE_CHECKING:
    from datasets import Dataset

SHARE = 0.1  # of the rows of --data, for each split without its own source
INPUT_COLUMNS = ("prompt", "text", "text_pair", "tokens")  # the question of a row; equal ones stay in the same split


class Splits(NamedTuple):
    """The rows of the three splits, as JSON lines."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    @property
    def sizes(self) -> dict[str, int]:
        """Number of rows in each split."""
        return {name: len(rows) for name, rows in self._asdict().items()}

    @property
    def digests(self) -> dict[str, str]:
        """Hash of each split."""
        return {n: hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16] for n, rows in self._asdict().items()}

    @property
    def shared(self) -> dict[str, int]:
        """Number of validation rows that also are training rows, and of test rows that are in either of the others."""
        earlier = {"validation": {*self.train}, "test": {*self.train, *self.validation}}
        return {name: sum(row in rows for row in getattr(self, name)) for name, rows in earlier.items()}

    def dataset(self, name: str, limit: int | None = None) -> Dataset:
        """Return a split, or its first `limit` rows, in the form that `load_rows` returns."""
        rows = [json.loads(row) for row in getattr(self, name)[:limit]]
        return check_rows(rows, f"the {name} split", (*PREFERENCES, *LABELLED, *LANGUAGE, *PROMPTS))


def read_splits(settings: CompareSettings, common: Mapping[str, Any]) -> Splits:
    """Read the splits that `settings` names.

    A validation or test split without a source comes from the task, or is a tenth of --data. The cut is random but
    always the same, and rows with the same prompt stay in the same split. Warns if a split repeats rows of an
    earlier one. `common` are the training settings that all methods share.

    Raises:
        ActshiftError: if rows cannot be read or scored, if they are too few to cut, or if all rows of a split are in
            an earlier one.
    """
    own = {name: getattr(settings, name) for name in ("task", "data_dir", "map")}
    run = TrainSettings.from_mapping({**common, **own})
    objective = explicit_objective(run)
    missing = cut_names(settings)
    sources = {"train": settings.data, "validation": settings.eval_data, "test": settings.test_data}
    lines = {name: _read_lines(run, source, name, objective) for name, source in sources.items() if name not in missing}
    if missing and settings.data and any(parse_sources(settings.data).values()):
        problem = "Weights of data would repeat rows in the splits that are cut"
        raise ActshiftError(f"{problem}; give eval_data and test_data, or leave the weights out.")
    if missing:
        lines |= _cut(lines["train"], missing, settings.required("data"))
    splits = Splits(**{name: tuple(rows) for name, rows in lines.items()})
    for name, count in splits.shared.items():
        where = f"rows of the {name} split are also in an earlier split"
        if count == splits.sizes[name]:
            raise ActshiftError(f"All {count} {where}, so it would measure memory. Give other rows.")
        if count:
            warnings.warn(f"{count} of {splits.sizes[name]} {where}.", stacklevel=2)
    return splits


def store_splits(splits: Splits, folder: Path) -> None:
    """Write each split to a .jsonl file in `folder`, or raise ActshiftError if it contains other rows."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in splits._asdict().items():
        path, text = folder / f"{name}.jsonl", "".join(f"{row}\n" for row in rows)
        if not path.exists():
            write_atomically(path, text)
        elif path.read_text(encoding="utf-8") != text:
            began = f"the rows that the comparison in {folder.parent} began with"
            raise ActshiftError(f"The {name} rows differ from {began}. Give another --out.")


def cut_names(settings: CompareSettings) -> list[str]:
    """Return the names of the splits to cut from --data; a task has its own splits."""
    sources = {"validation": settings.eval_data, "test": settings.test_data}
    return [name for name, source in sources.items() if not source and not settings.task]


def _read_lines(
    run: TrainSettings, source: str | Sequence[str] | None, split: str, objective: Objective | None
) -> list[str]:
    rows = read_rows(run, split, source, objective)
    if rows.column_names == ["text"]:
        raise ActshiftError(f"{source} has text only. Exact match needs prompt and completion, or messages.")
    # The keys inside a value keep their order, because chat templates write tools in it.
    values = cast("Iterable[dict[str, Any]]", rows)
    return [json.dumps(dict(sorted(row.items())), ensure_ascii=False) for row in values]


def _cut(rows: Sequence[str], names: Sequence[str], source: str | Sequence[str]) -> dict[str, list[str]]:
    """Return the remaining rows as `train`, and the rows of each split in `names`."""
    groups: dict[str, list[str]] = {}
    for row in rows:
        groups.setdefault(_question(row), []).append(row)
    order = sorted(groups)
    random.Random(0).shuffle(order)
    size = round(SHARE * len(rows))
    cut: dict[str, list[str]] = {name: [] for name in names}
    for part in cut.values():
        while order and len(part) < size:
            part += groups[order.pop()]
    remaining = set(order)
    cut["train"] = [row for row in rows if _question(row) in remaining]
    if not size or not cut["train"]:
        raise ActshiftError(f"{len(rows)} rows in {source} are too few to cut {' and '.join(names)} rows from.")
    return cut


def _question(line: str) -> str:
    row = json.loads(line)
    chat = row.get("messages") or (row.get("chosen") if "prompt" not in row else None)
    return json.dumps(chat[:-1] if chat else [row.get(name) for name in INPUT_COLUMNS], sort_keys=True)
