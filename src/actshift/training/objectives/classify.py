"""Classification of texts and tagging of words: cross-entropy over the head's classes, by transformers' own Trainer."""

from __future__ import annotations

from functools import partial
from typing import Any

from actshift.encoding import padded
from actshift.head import TaskType
from actshift.training.objectives.objective import Objective
from actshift.training.settings import TrainSettings


class Classify(Objective):
    """Learn the class of a text, or of a pair of texts; the head is trained beside the adapter."""

    name = "classify"
    task_type: TaskType = "SEQ_CLS"
    kinds = (("text", "label"),)
    form = "labels"

    def arguments(self, settings: TrainSettings, **common: Any) -> Any:
        """Return transformers' settings."""
        from transformers import TrainingArguments

        return TrainingArguments(**common)

    def trainer_class(self) -> Any:
        """Return the trainer's class: transformers' own."""
        import transformers

        return transformers.Trainer

    def given(self, job: Any, arguments: Any) -> dict[str, Any]:
        """Return the examples, and our way to make batches of them."""
        return {**super().given(job, arguments), "data_collator": partial(padded, tokenizer=job.tokenizer)}

    def trainer(self, model: Any, job: Any, arguments: Any, callbacks: Any) -> Any:
        """Return its trainer, which averages the loss over gradient accumulation."""
        trainer = super().trainer(model, job, arguments, callbacks)
        trainer.model_accepts_loss_kwargs = False  # its forward takes any, but its loss is a mean over the batch
        return trainer


class Tag(Classify):
    """Learn the tag of each word of a text, at the word's first token."""

    name = "tag"
    task_type = "TOKEN_CLS"
    kinds = (("tokens", "tags"),)
