"""Objectives of encoders with transformers' Trainer: classes of texts, tags of words, similarity of text pairs."""

from functools import partial
from typing import Any, ClassVar

from actshift.data.collate import pad_batch
from actshift.data.encode import Encoded, EncodedExample
from actshift.data.pairs import contrastive_loss, split_pair
from actshift.errors import ActshiftError
from actshift.model_head import TaskType
from actshift.training.objectives.objective import Examples, Objective
from actshift.training.settings import TrainSettings


class Classify(Objective):
    """Cross-entropy on the class of a text or of a pair of texts. The head is trained together with the adapter."""

    name = "classify"
    summary = "classify texts"
    task_type: ClassVar[TaskType] = "SEQ_CLS"
    kinds = (("text", "label"),)
    form = "labels"

    def trainer_kwargs(self, examples: Examples, settings: TrainSettings, arguments: Any) -> dict[str, Any]:
        """Return the datasets and a collator that pads."""
        collator = partial(pad_batch, tokenizer=examples.tokenizer)
        return {**super().trainer_kwargs(examples, settings, arguments), "data_collator": collator}

    def build_trainer(self, *args: Any, **kwargs: Any) -> Any:
        """Return the trainer, which averages the loss over gradient accumulation."""
        trainer = super().build_trainer(*args, **kwargs)
        # The forward accepts num_items_in_batch but ignores it: its loss is a mean over the batch.
        trainer.model_accepts_loss_kwargs = False
        return trainer


class Tag(Classify):
    """Cross-entropy on the tag of each word, at the word's first token."""

    name = "tag"
    summary = "tag words"
    task_type: ClassVar[TaskType] = "TOKEN_CLS"
    kinds = (("tokens", "tags"),)


class Embed(Classify):
    """Contrastive loss on pairs of texts, with the other rows of the batch as negatives. No head is trained."""

    name = "embed"
    summary = "embed pairs of texts close to each other"
    task_type: ClassVar[TaskType] = "FEATURE_EXTRACTION"
    kinds = (("text", "text_pair"),)

    def encode(self, rows: Any, tokenizer: Any, settings: TrainSettings, head: Any, config: Any = None) -> Encoded:
        """Return both texts of each row as token ids.

        Raises:
            ActshiftError: the batch size is 1, which leaves no negatives, or `cache_prefix` is on.
        """
        if settings.cache_prefix != "off":
            raise ActshiftError("embed draws new batches in every epoch; cache_prefix cannot be used, leave it off.")
        if settings.batch_size < 2:
            raise ActshiftError("embed needs other rows of the batch as negatives; use a batch_size of 2 or more.")
        return super().encode(rows, tokenizer, settings, head, config)

    def training_arguments(self, settings: TrainSettings, **common: Any) -> Any:
        """Return transformers' arguments for an evaluation that computes the loss only."""
        return super().training_arguments(settings, **common, prediction_loss_only=True, remove_unused_columns=False)

    def model_inputs(self, encoded: Encoded, tokenizer: Any) -> list[EncodedExample]:
        """Return the first text of each pair."""
        return [split_pair(example)[0] for example in encoded.examples]

    def trainer_class(self) -> Any:
        """Return transformers' Trainer with the contrastive loss, in training and in evaluation."""
        import torch
        import transformers

        class PairTrainer(transformers.Trainer):
            in_batch_negatives = True  # so each epoch needs new batches

            def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
                return contrastive_loss(model, inputs)

            def prediction_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
                with torch.no_grad():  # the Trainer computes a loss only for batches with labels
                    return self.compute_loss(model, self._prepare_inputs(inputs)).detach(), None, None

        return PairTrainer
