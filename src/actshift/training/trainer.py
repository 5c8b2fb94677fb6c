"""What any trainer is told beyond its settings. Importing this imports torch and transformers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from random import Random
from typing import Any, cast

from torch import nn
from torch.optim import Optimizer
from torch.utils.data import Sampler
from transformers import PrinterCallback, Trainer

from actshift.tuner.controls import parameter_groups


class LengthGroupedSampler(Sampler[int]):
    """Rows one after another, so that each `batch_size` of them are of like length.

    The rows are cut into batches once, and each epoch reads the batches in an order of its own: transformers'
    sampler goes from long to short through 50 batches at a time. The rows that fill no batch are drawn, and come last.

    >>> sampler = LengthGroupedSampler([5, 1, 4, 2], batch_size=2, seed=0)
    >>> sorted(sorted(batch) for batch in sampler.batches)
    [[0, 2], [1, 3]]
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        rows = list(range(len(lengths)))
        Random(seed).shuffle(rows)  # the sort is stable, so rows of one length stay shuffled
        whole = len(rows) - len(rows) % batch_size
        ordered, self.rest = sorted(rows[:whole], key=lengths.__getitem__), rows[whole:]
        self.batches = [ordered[at : at + batch_size] for at in range(0, whole, batch_size)]
        self.seed, self.epoch = seed, 0

    def __len__(self) -> int:
        return sum(map(len, self.batches)) + len(self.rest)

    def __iter__(self) -> Iterator[int]:
        order = Random(f"{self.seed}, {self.epoch}").sample(self.batches, len(self.batches))
        yield from (row for batch in order for row in batch)
        yield from self.rest

    def set_epoch(self, epoch: int) -> None:
        """Have the next pass read the batches in the order of this epoch; a resumed run finds it again so."""
        self.epoch = epoch


def length_of(example: Mapping[str, Any]) -> int:
    """Return the length in tokens of an example, or of the longer one of its texts.

    >>> length_of({"input_ids": [5, 6], "pair_input_ids": [7], "labels": 1})
    2
    """
    return max(len(value) for value in example.values() if isinstance(value, list))


def lengths_of(examples: Iterable[Mapping[str, Any]]) -> list[int]:
    """Return the length of each example."""
    return [length_of(example) for example in examples]


class TrainerMixin:
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
        return LengthGroupedSampler(lengths_of(cast(Any, rows)), trainer.args.train_batch_size, trainer.args.seed)

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
    return type(kind.__name__, (TrainerMixin, kind), {})
