"""What a run reads: its objective, its rows, split for evaluation, and the head that these ask of the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from actshift.data import LABELLED, load_rows
from actshift.errors import ActshiftError
from actshift.head import Head, labels_of, own_head
from actshift.training.objectives import OBJECTIVES, Objective
from actshift.training.settings import TrainSettings

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Inputs:
    """What a run is trained to do, on which rows, with which head; `eval_rows` are None where it is not evaluated."""

    objective: Objective
    rows: Dataset
    eval_rows: Dataset | None
    head: Head


def named(settings: TrainSettings, name: str) -> str:
    """Return the setting `name`, one of model, data and out; raise ActshiftError where it was not given."""
    value = getattr(settings, name)
    if not value:
        raise ActshiftError(f"The setting {name} is missing; give --{name}, or {name} in the config file.")
    return value


def read_inputs(settings: TrainSettings) -> Inputs:
    """Return what `settings` name, read and checked; of the model its config and its tokenizer at most.

    A task is evaluated on its validation split, other rows as eval_data or eval_share say.

    Raises ActshiftError for rows that cannot be read or used, and for a share that leaves a side without rows.
    """
    from actshift.loading import load_config

    if settings.task and settings.data:
        raise ActshiftError("task and data both say what to train on; give one of them.")
    if settings.eval_data and settings.eval_share:
        raise ActshiftError("eval_data and eval_share both say what to evaluate on; give one of them.")
    config = load_config(named(settings, "model"), settings.trust_remote_code)
    objective = _objective(settings, own_head(config))
    rows = _rows(settings, "train", objective)
    if objective is None:
        objective = objective_of_rows(rows)
    rows, eval_rows = _split(settings, rows, objective)
    return Inputs(objective, rows, eval_rows, objective.head(rows, _labels(settings, config, objective, rows)))


def objective_of_rows(rows: Dataset) -> Objective:
    """Return what can be learned from rows, by their columns: of several, what uses most of them.

    >>> from datasets import Dataset
    >>> objective_of_rows(Dataset.from_dict({"text": ["so good"], "label": ["1"]})).name
    'classify'
    """
    found = set(rows.column_names)
    return max(OBJECTIVES.values(), key=lambda one: max(len(kind) if found >= set(kind) else 0 for kind in one.kinds))


def task_rows(task: str, split: str, data_dir: str | None, objective: Objective, tokenizer: Any, chat: bool) -> Dataset:
    """Return a split of a task in the form that `objective` reads: by its chat template if it has one and `chat`."""
    from actshift.tasks import get_task

    form = "messages" if objective.form == "text" and chat and tokenizer.chat_template else objective.form
    return get_task(task).load(split, data_dir, form=form)  # type: ignore[arg-type]


def _objective(settings: TrainSettings, head: str | None) -> Objective | None:
    """The objective asked for, or the one of the model's own head; None where the rows must tell."""
    if settings.objective:
        return OBJECTIVES[settings.objective]
    if head is not None:
        return next(one for one in OBJECTIVES.values() if one.task_type == head)
    return OBJECTIVES["classify"] if settings.task else None


def _rows(settings: TrainSettings, split: str, objective: Objective | None) -> Dataset:
    from actshift.loading import load_tokenizer

    if settings.task:
        tokenizer = load_tokenizer(named(settings, "model"), settings.trust_remote_code)
        return task_rows(
            settings.task, split, settings.data_dir, objective or OBJECTIVES["classify"], tokenizer, settings.chat
        )
    kinds = objective.kinds if objective else LABELLED
    if split == "train":
        return load_rows(named(settings, "data"), kinds=kinds)
    return load_rows(str(settings.eval_data), split="validation", kinds=kinds)


def _split(settings: TrainSettings, rows: Dataset, objective: Objective) -> tuple[Dataset, Dataset | None]:
    if settings.eval_data or (settings.task and not settings.eval_share):
        return rows, _rows(settings, "validation", objective)
    if not settings.eval_share:
        return rows, None
    held_out = round(len(rows) * settings.eval_share)
    if not 0 < held_out < len(rows):
        raise ActshiftError(
            f"eval_share {settings.eval_share:g} of the {len(rows)} rows of {settings.data or settings.task} leaves no "
            "row on one side."
        )
    split = rows.train_test_split(held_out, seed=settings.seed)
    return split["train"], split["test"]


def _labels(settings: TrainSettings, config: Any, objective: Objective, rows: Dataset) -> tuple[str, ...]:
    """The names of the classes where these are known: a task's, or those of a head that the model comes with."""
    if settings.task and objective.form == "labels":
        from actshift.tasks import get_task

        return get_task(settings.task).labels or ()
    if own_head(config) != objective.task_type or objective.task_type == "CAUSAL_LM":
        return ()
    own = labels_of(config)
    return own if set(objective.head(rows).labels) <= set(own) else ()
