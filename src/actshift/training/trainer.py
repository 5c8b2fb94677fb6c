"""What any trainer is told beyond its settings. Importing this imports torch and transformers."""

from __future__ import annotations

from functools import cache
from typing import Any, cast

from torch import nn
from torch.optim import Optimizer
from torch.utils.data import Sampler
from transformers import PrinterCallback, Trainer

from actshift.training.like_lengths import LikeLengths, lengths_of
from actshift.tuner.parameter_groups import parameter_groups


class OurTrainer:
    """Mixed into a trainer: no model card, batches of like length of our own, a learning rate for the LoRA half."""

    def __init__(self, *args: Any, lora_learning_rate: float | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lora_learning_rate = lora_learning_rate
        self.processing_class = None  # else it aligns the model's special tokens, and saves a copy a checkpoint
        self.remove_callback(PrinterCallback)  # type: ignore[attr-defined]

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Optimizer:
        """Split each of the inherited groups (with and without weight decay) into the halves, at their rates."""
        trainer = cast(Trainer, self)
        fresh = trainer.optimizer is None
        optimizer = super().create_optimizer(*args, **kwargs)  # type: ignore[misc]
        if fresh and self.lora_learning_rate is not None:
            halves = parameter_groups(
                cast(nn.Module, trainer.model), trainer.args.learning_rate, self.lora_learning_rate
            )
            optimizer.param_groups[:] = [
                {**group, **half, "params": shared}
                for group in optimizer.param_groups
                for half in halves
                if (shared := [one for one in group["params"] if any(one is other for other in half["params"])])
            ]
        return optimizer

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler | None:
        """Group by length in our own way, unless a row learns from those it shares a batch with: they are to change."""
        trainer, draws_anew = cast(Trainer, self), getattr(self, "in_batch_negatives", False)
        if trainer.args.train_sampling_strategy != "group_by_length" or draws_anew:
            return super()._get_train_sampler(train_dataset)  # type: ignore[misc]
        rows = trainer.train_dataset if train_dataset is None else train_dataset
        return LikeLengths(lengths_of(cast(Any, rows)), trainer.args.train_batch_size, trainer.args.seed)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log the learning rate of the LoRA half beside the other's."""
        if "learning_rate" in logs and self.lora_learning_rate is not None:
            groups = cast(Optimizer, cast(Trainer, self).optimizer).param_groups
            rates = {group["name"]: group["lr"] for group in groups}
            logs |= {"learning_rate": rates["activations"], "lora_learning_rate": rates["weights"]}
        super().log(logs, *args, **kwargs)  # type: ignore[misc]

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing; ours is written once, with the result."""


@cache
def trainer_of(kind: type) -> type:
    """Return the class `kind`, one of transformers' or TRL's trainers, as our runs use it."""
    return type(kind.__name__, (OurTrainer, kind), {})
