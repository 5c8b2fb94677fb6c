"""What a run reads, as token ids and labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from actshift.data import LABELLED, load_rows
from actshift.data.encode import Encoded
from actshift.errors import ActshiftError
from actshift.model_head import Head, labels_of, own_head
from actshift.training.objectives import OBJECTIVES, Objective
from actshift.training.settings import TrainSettings

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Inputs:
    """What a run is trained to do, on which rows, with which head; `eval_rows` are None where it is not evaluated."""

    objective: Objective
    rows: Dataset
    eval_rows: Dataset | None
    head: Head


def require_setting(settings: TrainSettings, name: str) -> str:
    """Return the setting `name`, one of model, data and out; raise ActshiftError where it was not given."""
    value = getattr(settings, name)
    if not value:
        flags = "--data or --task" if name == "data" else f"--{name}"
        raise ActshiftError(f"The setting {name} is missing; give {flags}, or {name} in the config file.")
    return value


def read_inputs(settings: TrainSettings) -> Inputs:
    """Return what `settings` name, read and checked; of the model its config and its tokenizer at most.

    A task is evaluated on its validation split, other rows as eval_data or eval_share say.

    Raises ActshiftError for rows that cannot be read or used, and for a share that leaves a side without rows.
    """
    if settings.eval_data and settings.eval_share:
        raise ActshiftError("eval_data and eval_share both say what to evaluate on; give one of them.")
    objective = known_objective(settings)
    rows = read_rows(settings, "train", settings.data, objective)
    objective = objective or objective_of_rows(rows)
    rows, eval_rows = _split(settings, rows, objective)
    return Inputs(objective, rows, eval_rows, head_for(settings, objective, rows))


def known_objective(settings: TrainSettings) -> Objective | None:
    """Return the objective that is asked for, or that of the model's own head; None where the rows must tell."""
    if settings.objective:
        return OBJECTIVES[settings.objective]
    if head := own_head(_config(settings)):
        return next(one for one in OBJECTIVES.values() if one.task_type == head)
    return OBJECTIVES["classify"] if settings.task else None


def read_rows(settings: TrainSettings, split: str, source: str | None, objective: Objective | None) -> Dataset:
    """Return the rows of a split in the form that the objective reads: from `source`, or else from the task.

    By the tokenizer's chat template, if it has one and `chat` is on, a task's rows become messages. Raises
    ActshiftError where neither or both are given, and for rows that cannot be read.
    """
    if source and settings.task and split == "train":
        raise ActshiftError("task and data both say what to train on; give one of them.")
    if source or not settings.task:
        kinds = objective.kinds if objective else LABELLED
        return load_rows(source or require_setting(settings, "data"), split, kinds=kinds)
    from actshift.loading import load_tokenizer
    from actshift.tasks import get_task

    form = objective.form if objective else "labels"
    if form == "text" and settings.chat:
        tokenizer = load_tokenizer(require_setting(settings, "model"), settings.trust_remote_code)
        form = "messages" if tokenizer.chat_template else "text"
    return get_task(settings.task).load(split, settings.data_dir, form=form)


def objective_of_rows(rows: Dataset) -> Objective:
    """Return what can be learned from rows, by their columns: of several, what uses most of them.

    >>> from datasets import Dataset
    >>> objective_of_rows(Dataset.from_dict({"text": ["so good"], "label": ["1"]})).name
    'classify'
    """
    found = set(rows.column_names)
    return max(OBJECTIVES.values(), key=lambda one: max(len(kind) if found >= set(kind) else 0 for kind in one.kinds))


def head_for(settings: TrainSettings, objective: Objective, rows: Dataset) -> Head:
    """Return the head that the objective needs for `rows`, its classes named as the task or the model itself does.

    Raises ActshiftError for rows all of one class.
    """
    if settings.task and objective.form == "labels":
        from actshift.tasks import get_task

        return objective.head(rows, get_task(settings.task).labels or ())
    head, config = objective.head(rows), _config(settings)
    if head.classifies and own_head(config) == head.task_type and set(head.labels) <= set(labels_of(config)):
        return objective.head(rows, labels_of(config))
    return head


def _config(settings: TrainSettings) -> Any:
    from actshift.loading import load_config

    return load_config(require_setting(settings, "model"), settings.trust_remote_code)


def _split(settings: TrainSettings, rows: Dataset, objective: Objective) -> tuple[Dataset, Dataset | None]:
    if settings.eval_data or (settings.task and not settings.eval_share):
        return rows, read_rows(settings, "validation", settings.eval_data, objective)
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


@dataclass(frozen=True)
class Examples:
    """What a run reads: its objective, the encoded rows that it trains on, and those it is evaluated on, if any."""

    objective: Objective
    train: Encoded
    held_out: Encoded | None

    @classmethod
    def of(cls, inputs: Inputs, tokenizer: PreTrainedTokenizerBase, settings: TrainSettings) -> Examples:
        """Encode the rows of both, as the objective does."""
        train, held_out = (
            inputs.objective.encode(rows, tokenizer, settings, inputs.head) if rows is not None else None
            for rows in (inputs.rows, inputs.eval_rows)
        )
        assert train is not None
        return cls(inputs.objective, train, held_out)

    def datasets(self) -> dict[str, Dataset | None]:
        """Return both as a trainer takes them."""
        from datasets import Dataset

        held_out = Dataset.from_list(self.held_out.examples) if self.held_out else None
        return {"train_dataset": Dataset.from_list(self.train.examples), "eval_dataset": held_out}

    @property
    def digest(self) -> str:
        """A fingerprint of all of them."""
        return self.train.digest + (self.held_out.digest if self.held_out else "")
