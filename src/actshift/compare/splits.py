"""The rows of a comparison: to train on, to choose by, and to report; given, or cut from one source."""

from __future__ import annotations

import hashlib
import json
import random
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actshift.compare.settings import CompareSettings
from actshift.errors import ActshiftError
from actshift.files import write_whole
from actshift.training import TrainSettings
from actshift.training.data import known_objective, read_rows
from actshift.training.objectives import Objective

if TYPE_CHECKING:
    from datasets import Dataset

NAMES = ("train", "validation", "test")
SHARE = 0.1
"""Of the rows of --data, what each split gets that is not given by itself."""
READ = ("text", "text_pair", "tokens")
"""What of a row for an encoder is its question, so to say."""
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Splits:
    """Rows of the three splits, as JSON lines; `shared` counts validation and test rows that are training rows too."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    @property
    def sizes(self) -> dict[str, int]:
        """Rows in each split."""
        return {name: len(getattr(self, name)) for name in NAMES}

    @property
    def shared(self) -> dict[str, int]:
        """For validation and test, the rows that are to be found in a split before, word for word."""
        train, validation = set(self.train), set(self.validation)
        return {
            "validation": sum(row in train for row in self.validation),
            "test": sum(row in train or row in validation for row in self.test),
        }

    def dataset(self, name: str, limit: int | None = None) -> Dataset:
        """The rows of a split, or the first of them, as `load_rows` gives them."""
        from datasets import Dataset

        return Dataset.from_list([json.loads(row) for row in getattr(self, name)[:limit]])

    @property
    def digests(self) -> dict[str, str]:
        """A fingerprint of each split."""
        return {name: hashlib.sha256("\n".join(getattr(self, name)).encode()).hexdigest()[:16] for name in NAMES}


def read_splits(settings: CompareSettings, common: Mapping[str, Any]) -> Splits:
    """Return the rows that `settings` name, by the settings of training that are `common` to all methods.

    What has no source of its own is the task's, or a tenth of --data, cut at random.

    The cut is the same each time. Rows with the same prompt stay on one side of it.

    Raises ActshiftError for rows that cannot be read or scored, too few to cut, and a split that lies wholly in one
    before it; warns of rows that do.
    """
    run = TrainSettings.from_mapping({**common, "task": settings.task, "data_dir": settings.data_dir})
    objective = known_objective(run)
    rest = _lines(run, settings.data, "train", objective)
    missing = cut_names(settings)
    sources = {"validation": settings.eval_data, "test": settings.test_data}
    given = {name: _lines(run, source, name, objective) for name, source in sources.items() if name not in missing}
    if missing:
        rest, cut = _cut(rest, missing, settings.named("data"))
        given.update(cut)
    splits = Splits(tuple(rest), tuple(given["validation"]), tuple(given["test"]))
    for name, count in splits.shared.items():
        if count == splits.sizes[name]:
            raise ActshiftError(
                f"All {count} rows of the {name} split are in a split before it too, so it measures memory; give rows "
                "of its own."
            )
        if count:
            warnings.warn(
                f"{count} of {splits.sizes[name]} rows of the {name} split are in a split before it too.", stacklevel=2
            )
    return splits


def store_splits(splits: Splits, folder: Path) -> dict[str, str]:
    """Write the splits to `folder`, and return each one's path.

    Raises ActshiftError where the folder holds other rows, of another comparison.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.jsonl" for name in NAMES}
    for name, path in paths.items():
        text = "".join(f"{row}\n" for row in getattr(splits, name))
        if not path.exists():
            write_whole(path, text)
        elif path.read_text(encoding="utf-8") != text:
            raise ActshiftError(
                f"The {name} rows are not those that the comparison in {folder.parent} began with; compare into "
                "another --out."
            )
    return {name: str(path) for name, path in paths.items()}


def cut_names(settings: CompareSettings) -> list[str]:
    """Return the splits that are cut from --data; a task has its own."""
    given = {"validation": settings.eval_data, "test": settings.test_data}
    return [name for name, source in given.items() if not source and not settings.task]


def _lines(run: TrainSettings, source: str | None, split: str, objective: Objective | None) -> list[str]:
    rows = read_rows(run, split, source, objective)
    if rows.column_names == ["text"]:
        raise ActshiftError(f"{source} has text only; exact match needs prompt and completion, or messages.")
    return [json.dumps(row, ensure_ascii=False, sort_keys=True) for row in rows]


def _cut(rows: Sequence[str], names: Sequence[str], source: str) -> tuple[list[str], dict[str, list[str]]]:
    groups: dict[str, list[str]] = {}
    for row in rows:
        groups.setdefault(_prompt(json.loads(row)), []).append(row)
    order = sorted(groups)
    random.Random(0).shuffle(order)
    size, cut = round(SHARE * len(rows)), {name: [] for name in names}
    for name in names:
        while order and len(cut[name]) < size:
            cut[name] += groups[order.pop()]
    taken = set(order)
    rest = [row for row in rows if _prompt(json.loads(row)) in taken]
    if not size or not rest:
        raise ActshiftError(f"{len(rows)} rows in {source} are too few to cut {' and '.join(names)} rows from.")
    return rest, cut


def _prompt(row: Row) -> str:
    read = row["messages"][:-1] if "messages" in row else [row.get(name) for name in ("prompt", *READ)]
    return json.dumps(read)
