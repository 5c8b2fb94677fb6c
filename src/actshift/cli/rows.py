"""Rows that a user names by --data or --task, read as training would read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actshift.errors import ActshiftError

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from actshift.cli.models import Base
    from actshift.model_head import Head


def check_source(data: str | None, task: str | None, data_dir: str | None, columns: list[str] | None = None) -> None:
    """Raise ActshiftError unless either `data` or `task` is set, `data_dir` only with `task`, and --map with `data`."""
    if (data is None) == (task is None):
        raise ActshiftError("Give either --data with rows or --task with the name of a task.")
    if data_dir is not None and task is None:
        raise ActshiftError("--data-dir is the folder of a task's files. Add --task, or leave --data-dir out.")
    if columns and task is not None:
        raise ActshiftError("--map renames the columns of --data, and a task has its own. Leave --map out.")


def rows_for(
    base: Base,
    data: str | None,
    task: str | None,
    data_dir: str | None,
    split: str | None,
    limit: int,
    columns: list[str] | None = None,
) -> Dataset:
    """Return at most `limit` rows, read as `actshift train` would read them for a base model; `columns` is --map."""
    from actshift.training import TrainSettings
    from actshift.training.data import explicit_objective, read_rows

    check_source(data, task, data_dir, columns)
    source: dict[str, Any] = {"task": task, "data_dir": data_dir, "map": tuple(columns or ()) or None, "limit": limit}
    settings = TrainSettings(model=base.source, revision=base.revision, **source)
    return read_rows(settings, split or "train", data, explicit_objective(settings))


def head_for_rows(base: Base, task: str | None, rows: Dataset) -> Head:
    """Return the head that training a base on the rows would use: the model's own, or a new one for an encoder."""
    from actshift.training import TrainSettings
    from actshift.training.data import choose_head, explicit_objective, infer_objective

    settings = TrainSettings(model=base.source, revision=base.revision, task=task)
    return choose_head(settings, explicit_objective(settings) or infer_objective(rows), rows)


def limit_length(max_length: int, model: Any, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the maximum tokens of a row, reduced to the context of the model."""
    from actshift.loading import context_length

    return min(max_length, context_length(model.config, tokenizer))


def limit_batch_size(batch_size: int, rows: int) -> int:
    """Return the batch size, reduced to fill at least eight batches: fewer show no useful spread of a gain.

    >>> limit_batch_size(8, rows=20), limit_batch_size(8, rows=200), limit_batch_size(8, rows=3)
    (2, 8, 1)
    """
    return max(1, min(batch_size, rows // 8))
