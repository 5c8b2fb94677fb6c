"""What a run is trained to do: the rows that it reads, the head that it needs, and the trainer that lowers its loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from actshift.data.encode import Encoded, Example, class_names, encode
from actshift.data.rows import Columns
from actshift.errors import ActshiftError
from actshift.model_head import CLASSIFIERS, Head, TaskType
from actshift.training.settings import TrainSettings

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainingArguments

    from actshift.training.fit import Job


class Objective(ABC):
    """One objective, of which there is one object; what a subclass leaves out is that of supervised learning."""

    name: ClassVar[str]
    task_type: ClassVar[TaskType] = "CAUSAL_LM"
    kinds: ClassVar[Sequence[Columns]]
    """The columns that its rows may have."""
    form: ClassVar[Literal["text", "labels"]] = "text"
    """How a task gives its rows: as text (or messages, by the chat template), or as labels."""
    figures: ClassVar[Mapping[str, str]] = {}
    """What its trainer logs that a run is judged by, beside the loss, with a name for each."""

    def head(self, rows: Dataset, labels: Sequence[str] = ()) -> Head:
        """Return the head that a model needs for `rows`; `labels` are the names of its classes where these are known.

        Raises ActshiftError for a classifier of fewer than two classes.
        """
        named = tuple(labels) or class_names(rows)
        head = Head(self.task_type, named if self.task_type in CLASSIFIERS else ())
        if head.classifies and len(head.labels) < 2:
            raise ActshiftError(f"All rows have the label {', '.join(head.labels)!r}; there is nothing to tell apart.")
        return head

    def encode(self, rows: Dataset, tokenizer: PreTrainedTokenizerBase, settings: TrainSettings, head: Head) -> Encoded:
        """Return rows as what its trainer reads; raise ActshiftError where they cannot be."""
        return encode(rows, tokenizer, settings.max_length, head.labels)

    def read(self, encoded: Encoded, tokenizer: PreTrainedTokenizerBase) -> list[Example]:
        """Return what `encode` gave as token ids that one forward pass reads: what an adapter is measured on."""
        return encoded.examples

    @abstractmethod
    def arguments(self, settings: TrainSettings, **common: Any) -> TrainingArguments:
        """Return what its trainer is told: `common`, which is the same for all, and what is its own."""

    @abstractmethod
    def trainer_class(self) -> Any:
        """Return the class of its trainer, one of transformers' or TRL's."""

    def given(self, job: Job, arguments: TrainingArguments) -> dict[str, Any]:
        """Return what its trainer is given beside what all are: the job's examples, and what makes batches of them."""
        return job.examples.datasets()

    def trainer(self, model: Any, job: Job, arguments: TrainingArguments, callbacks: Sequence[TrainerCallback]) -> Any:
        """Return the trainer of `model` on the job's examples, told of the learning rates of the halves."""
        from actshift.training.trainer import trainer_of

        return trainer_of(self.trainer_class())(
            model,
            args=arguments,
            lora_learning_rate=job.settings.lora_learning_rate,
            processing_class=job.tokenizer,
            callbacks=callbacks,
            **self.given(job, arguments),
        )
