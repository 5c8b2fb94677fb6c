"""What a run reads: its rows, split for evaluation, and the settings that name where to read and write."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actshift.data import load_rows
from actshift.errors import ActshiftError
from actshift.training.settings import TrainSettings

if TYPE_CHECKING:
    from datasets import Dataset


def named(settings: TrainSettings, name: str) -> str:
    """Return the setting `name`, one of model, data and out; raise ActshiftError where it was not given."""
    value = getattr(settings, name)
    if not value:
        raise ActshiftError(f"The setting {name} is missing; give --{name}, or {name} in the config file.")
    return value


def load_splits(settings: TrainSettings) -> tuple[Dataset, Dataset | None]:
    """Return the rows to train on, and those to evaluate on where the settings ask for some.

    Raises ActshiftError for rows that cannot be read or used, and for a share that leaves a side without rows.
    """
    if settings.eval_data and settings.eval_share:
        raise ActshiftError("eval_data and eval_share both say what to evaluate on; give one of them.")
    rows = load_rows(named(settings, "data"))
    if settings.eval_data:
        return rows, load_rows(settings.eval_data, split="validation")
    if not settings.eval_share:
        return rows, None
    held_out = round(len(rows) * settings.eval_share)
    if not 0 < held_out < len(rows):
        raise ActshiftError(
            f"eval_share {settings.eval_share:g} of the {len(rows)} rows of {settings.data} leaves no row on one side."
        )
    split = rows.train_test_split(held_out, seed=settings.seed)
    return split["train"], split["test"]
