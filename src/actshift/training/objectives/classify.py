"""Classification of texts and tagging of words: cross-entropy over the head's classes, by transformers' own Trainer."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

from actshift.data.collate import padded
from actshift.data.encode import Encoded, Example
from actshift.data.pairs import partner_loss, sides
from actshift.errors import ActshiftError
from actshift.model_head import TaskType
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


class Embed(Classify):
    """Learn to tell each text's partner from those of the other rows in its batch; no head is trained."""

    name = "embed"
    task_type: TaskType = "FEATURE_EXTRACTION"
    kinds = (("text", "text_pair"),)

    def encode(self, rows: Any, tokenizer: Any, settings: TrainSettings, head: Any) -> Encoded:
        """Return both texts of each row as token ids.

        Raises ActshiftError for batches of one row, without another's, and for batches that are to come again.
        """
        if settings.cache_prefix != "off":
            raise ActshiftError(
                "embed learns from the other rows of a batch, which are others in every epoch, so that no batch comes "
                "again; leave cache_prefix off."
            )
        if settings.batch_size < 2:
            raise ActshiftError("embed tells a text's partner from those of its batch; use a batch_size of 2 or more.")
        return super().encode(rows, tokenizer, settings, head)

    def arguments(self, settings: TrainSettings, **common: Any) -> Any:
        """Return transformers' settings: a loss is all that an evaluation is to compute."""
        return super().arguments(settings, **common, prediction_loss_only=True, remove_unused_columns=False)

    def read(self, encoded: Encoded, tokenizer: Any) -> list[Example]:
        """Return the first text of each pair."""
        return [sides(example)[0] for example in encoded.examples]

    def trainer_class(self) -> Any:
        """Return transformers' Trainer with the loss of pairs."""
        return _pair_trainer()


@cache
def _pair_trainer() -> Any:
    import torch
    import transformers

    class PairTrainer(transformers.Trainer):
        """Its loss is `partner_loss`, in training and in evaluation."""

        in_batch_negatives = True  # so each epoch draws its batches anew

        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
            loss = partner_loss(model, inputs)
            return (loss, {}) if return_outputs else loss

        def prediction_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            """Return the loss alone: there are no labels, by which the Trainer tells that there is one."""
            with torch.no_grad():
                return self.compute_loss(model, self._prepare_inputs(inputs)).detach(), None, None

    return PairTrainer
