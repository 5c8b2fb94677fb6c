"""Read and encode the rows of a run, and choose its objective and model head."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from random import Random
from typing import TYPE_CHECKING, Any

from actshift.data import LABELLED, load_rows
from actshift.data.encode import Encoded
from actshift.data.rows import parse_sources
from actshift.errors import ActshiftError
from actshift.model_head import Head, head_of_config, labels_of
from actshift.training.objectives import OBJECTIVES, Examples, Objective
from actshift.training.settings import TrainSettings, require_setting

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

DEFAULT = "sft"  # the objective of rows that fit several ones equally well
SAMPLE = 1_000  # rows that estimates tokenize


@dataclass(frozen=True)
class Inputs:
    """The objective of a run, its rows, the head that its model needs, and the model's config if it is loaded."""

    objective: Objective
    rows: Dataset
    eval_rows: Dataset | None  # None without evaluation
    head: Head
    config: Any = None

    def encode(self, rows: Dataset, tokenizer: PreTrainedTokenizerBase, settings: TrainSettings) -> Encoded:
        """Return rows as token ids; raises what the objective's `encode` raises, or if a token has no embedding."""
        encoded = self.objective.encode(rows, tokenizer, settings, self.head, self.config)
        if self.config is not None:
            from actshift.loading import check_vocabulary, pad_id

            noun = "Row" if len(encoded.examples) == len(rows) else "Example"
            inputs = self.objective.model_inputs(encoded, tokenizer)
            places = ((f"{noun} {number}", example["input_ids"]) for number, example in enumerate(inputs, start=1))
            check_vocabulary(chain(places, [("Padding", [pad_id(tokenizer)])]), self.config, tokenizer)
        return encoded

    def encode_sample(self, tokenizer: PreTrainedTokenizerBase, settings: TrainSettings) -> tuple[Encoded, Dataset]:
        """Return a sample of the training rows (see `sample_rows`) as token ids, and the rows of the sample."""
        sample = sample_rows(self.rows)
        if len(sample) == len(self.rows):
            return self.encode(sample, tokenizer, settings), sample
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a warning would count the rows of the sample
                return self.encode(sample, tokenizer, settings), sample
        except ActshiftError:  # its message has the numbers of rows in the sample
            return self.encode(self.rows, tokenizer, settings), self.rows

    def examples(self, tokenizer: PreTrainedTokenizerBase, settings: TrainSettings) -> Examples:
        """Return both sets of rows as token ids; raises what `encode` raises."""
        train = self.encode(self.rows, tokenizer, settings)
        held_out = None if self.eval_rows is None else self.encode(self.eval_rows, tokenizer, settings)
        return Examples(train, held_out, tokenizer)


def read_inputs(settings: TrainSettings) -> Inputs:
    """Read the model's config and the rows that `settings` name, and check them.

    Raises:
        ActshiftError: the rows cannot be read or used, or eval_share leaves no rows for training or evaluation.
    """
    if settings.eval_data and settings.eval_share:
        raise ActshiftError("eval_data and eval_share both choose the evaluation rows; give one of them.")
    if settings.eval_data and any(parse_sources(settings.eval_data).values()):
        raise ActshiftError("Weights of eval_data would repeat rows in the evaluation; leave them out.")
    config = _load_config(settings)
    objective = explicit_objective(settings, config)
    rows = read_rows(settings, "train", settings.data, objective)
    objective = objective or infer_objective(rows)
    rows, eval_rows = _split(settings, rows, objective)
    return Inputs(objective, rows, eval_rows, choose_head(settings, objective, rows, config), config)


def explicit_objective(settings: TrainSettings, config: Any = None) -> Objective | None:
    """Return the objective that follows from the settings or the model's head, or None if the rows must decide."""
    if settings.objective:
        return OBJECTIVES[settings.objective]
    if head := head_of_config(config or _load_config(settings)):
        return next(OBJECTIVES[name] for name in (DEFAULT, *OBJECTIVES) if OBJECTIVES[name].task_type == head)
    return OBJECTIVES["classify"] if settings.task else None


def read_rows(
    settings: TrainSettings, split: str, source: str | Sequence[str] | None, objective: Objective | None
) -> Dataset:
    """Return the first `limit` rows of a split, from `source` or from the task, in the form that the objective reads.

    Raises:
        ActshiftError: the settings contain both data and task, or neither of them, or the rows cannot be read.
    """
    if source and settings.task and split == "train":
        raise ActshiftError("task and data both choose the training rows; give one of them.")
    if source or not settings.task:
        kinds = objective.kinds if objective else LABELLED
        given = source or require_setting(settings, "data")
        return load_rows(given, split, settings.limit, kinds, settings.map, settings.seed)
    if settings.map:
        raise ActshiftError("map renames the columns of data, and a task has columns of its own; leave map out.")
    from actshift.loading import load_tokenizer
    from actshift.tasks import get_task

    form = objective.form if objective else "labels"
    if form == "text" and settings.chat:  # messages, if the tokenizer has a chat template
        tokenizer = load_tokenizer(require_setting(settings, "model"), settings.trust_remote_code, settings.revision)
        form = "messages" if tokenizer.chat_template else "text"
    return get_task(settings.task).load(split, settings.data_dir, settings.limit, form)


def sample_rows(rows: Dataset) -> Dataset:
    """Return `SAMPLE` random rows in order, always the same ones, or all rows if there are no more."""
    if len(rows) <= SAMPLE:
        return rows
    return rows.select(sorted(Random(0).sample(range(len(rows)), SAMPLE)))


def infer_objective(rows: Dataset) -> Objective:
    """Return the objective that uses the most columns of the rows; `DEFAULT` wins a tie.

    >>> from datasets import Dataset
    >>> infer_objective(Dataset.from_dict({"text": ["so good"], "label": ["1"]})).name
    'classify'
    """
    columns = set(rows.column_names)

    def used(objective: Objective) -> tuple[int, bool]:
        return max(len(names) if columns >= set(names) else 0 for names in objective.kinds), objective.name == DEFAULT

    return max(OBJECTIVES.values(), key=used)


def choose_head(settings: TrainSettings, objective: Objective, rows: Dataset, config: Any = None) -> Head:
    """Return the head that the objective needs for `rows`, with the class names of the task or of the model.

    Raises ActshiftError if all rows have the same class.
    """
    if settings.task and objective.form == "labels":
        from actshift.tasks import get_task

        return objective.head(rows, get_task(settings.task).labels or ())
    head = objective.head(rows)
    if head.classifies:
        config = config or _load_config(settings)
        if head_of_config(config) == head.task_type and set(head.labels) <= set(labels_of(config)):
            return objective.head(rows, labels_of(config))
    return head


def _load_config(settings: TrainSettings) -> Any:
    from actshift.loading import load_config

    return load_config(require_setting(settings, "model"), settings.trust_remote_code, settings.revision)


def _split(settings: TrainSettings, rows: Dataset, objective: Objective) -> tuple[Dataset, Dataset | None]:
    if settings.eval_data or (settings.task and not settings.eval_share):
        return rows, read_rows(settings, "validation", settings.eval_data, objective)
    if not settings.eval_share:
        return rows, None
    if settings.data and any(parse_sources(settings.data).values()):
        raise ActshiftError("eval_share would hold out rows that weights repeat; give eval_data, or leave weights out.")
    held_out = round(len(rows) * settings.eval_share)
    if not 0 < held_out < len(rows):
        share = f"eval_share {settings.eval_share:g} of {len(rows)} rows"
        raise ActshiftError(f"{share} leaves none for training or for evaluation; choose another share.")
    split = rows.train_test_split(held_out, seed=settings.seed)
    return split["train"], split["test"]
