"""Vectors of texts: those that belong together come to lie near each other, by in-batch negatives."""

from __future__ import annotations

from functools import cache
from typing import Any

from actshift.encoding import Encoded, Example, partner_loss, sides
from actshift.errors import ActshiftError
from actshift.head import TaskType
from actshift.training.objectives.classify import Classify
from actshift.training.settings import TrainSettings


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
