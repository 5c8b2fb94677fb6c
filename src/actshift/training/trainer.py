"""Extensions of transformers' and TRL's trainers, and context managers around them. Imports torch and transformers."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from random import Random
from typing import Any, cast

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import Sampler
from transformers import PrinterCallback, Trainer
from transformers.utils import logging

from actshift.errors import ActshiftError
from actshift.sites.blocks import unwrap
from actshift.training.settings import TrainSettings
from actshift.tuner.controls import parameter_groups


class LengthGroupedSampler(Sampler[int]):
    """A sampler of batches of similar length.

    The rows are split into batches once, and every epoch shuffles the same batches. (The sampler of transformers
    draws new batches and sorts by length within 50 of them.) The rows of an incomplete batch are drawn at random and
    come last.

    >>> sampler = LengthGroupedSampler([5, 1, 4, 2], batch_size=2, seed=0)
    >>> sorted(sorted(batch) for batch in sampler.batches)
    [[0, 2], [1, 3]]
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        rows = list(range(len(lengths)))
        Random(seed).shuffle(rows)  # the sort is stable, so rows of equal length stay shuffled
        complete = len(rows) - len(rows) % batch_size
        ordered, self.rest = sorted(rows[:complete], key=lengths.__getitem__), rows[complete:]
        self.batches = [ordered[start : start + batch_size] for start in range(0, complete, batch_size)]
        self.seed, self.epoch = seed, 0

    def __len__(self) -> int:
        return sum(map(len, self.batches)) + len(self.rest)

    def __iter__(self) -> Iterator[int]:
        order = Random(f"{self.seed}, {self.epoch}").sample(self.batches, len(self.batches))
        yield from (row for batch in order for row in batch)
        yield from self.rest

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which seeds the order of the batches, so that a resumed run repeats it."""
        self.epoch = epoch


def lengths_of(examples: Iterable[Mapping[str, Any]]) -> list[int]:
    """Return the number of tokens of each example, or of the longer text of a pair.

    >>> lengths_of([{"input_ids": [5, 6], "pair_input_ids": [7], "labels": 1}])
    [2]
    """
    return [max(len(value) for value in example.values() if isinstance(value, list)) for example in examples]


class TrainerMixin:
    """Mixin for trainers: length-grouped batches, a separate learning rate for LoRA, and no model card."""

    def __init__(self, *args: Any, lora_learning_rate: float | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lora_learning_rate = lora_learning_rate
        # With a tokenizer the trainer would change the model's special tokens and save a copy in every checkpoint.
        self.processing_class = None
        cast(Trainer, self).remove_callback(PrinterCallback)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Optimizer:
        """Split each parameter group (with and without weight decay) into adapter and LoRA, with their own rates."""
        trainer = cast(Trainer, self)
        is_new = trainer.optimizer is None
        optimizer = cast(Optimizer, cast(Any, super()).create_optimizer(*args, **kwargs))
        if is_new and self.lora_learning_rate is not None:
            halves = parameter_groups(
                cast(nn.Module, trainer.model), trainer.args.learning_rate, self.lora_learning_rate
            )
            members = [{id(parameter) for parameter in half["params"]} for half in halves]
            optimizer.param_groups[:] = [
                {**group, **half, "params": shared}
                for group in optimizer.param_groups
                for half, ids in zip(halves, members, strict=True)
                if (shared := [parameter for parameter in group["params"] if id(parameter) in ids])
            ]
        return optimizer

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        trainer = cast(Trainer, self)
        # With in-batch negatives the batches must differ between epochs.
        fixed_batches = not getattr(self, "in_batch_negatives", False)
        if trainer.args.train_sampling_strategy != "group_by_length" or not fixed_batches:
            return cast(Any, super())._get_train_sampler(train_dataset)
        rows = trainer.train_dataset if train_dataset is None else train_dataset
        return LengthGroupedSampler(lengths_of(cast(Any, rows)), trainer.args.train_batch_size, trainer.args.seed)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log the learning rates of both parameter groups."""
        if "learning_rate" in logs and self.lora_learning_rate is not None:
            groups = cast(Optimizer, cast(Trainer, self).optimizer).param_groups
            rates = {group["name"]: group["lr"] for group in groups}
            logs |= {"learning_rate": rates["activations"], "lora_learning_rate": rates["weights"]}
        cast(Any, super()).log(logs, *args, **kwargs)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: `train` writes one model card with the result."""


@cache
def with_mixin(trainer_class: type) -> type:
    """Return a trainer class of transformers or TRL with `TrainerMixin`."""
    return type(trainer_class.__name__, (TrainerMixin, trainer_class), {})


def uses_bf16(settings: TrainSettings) -> bool:
    """Return True if a run computes in bfloat16: on request, or by default on a GPU with hardware support.

    Raises:
        ActshiftError: bf16 is requested on a GPU without support.
    """
    supported = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    if settings.precision == "bf16" and torch.cuda.is_available() and not supported:
        raise ActshiftError(f"{torch.cuda.get_device_name()} does not support bf16; use precision fp32.")
    return settings.precision == "bf16" or (settings.precision == "auto" and supported)


@contextmanager
def restore_model_after(model: Any) -> Generator[None, None, None]:
    """Restore the model's `forward` and `use_cache` after training.

    The trainer wraps `forward` with a fused loss and autocast, which would accumulate over runs and break pickling.
    """
    inner: Any = unwrap(model)
    forwards = [(module, module.__dict__.get("forward")) for module in (model, inner)]
    use_cache = inner.config.use_cache
    try:
        yield
    finally:
        inner.config.use_cache = use_cache
        for module, forward in forwards:
            module.__dict__.pop("forward", None)
            module.__dict__.pop("_original_forward", None)
            if forward is not None:
                module.forward = forward


@contextmanager
def quiet_libraries() -> Generator[None, None, None]:
    """Hide progress bars, log messages and FutureWarnings of transformers and TRL. Errors are still logged."""
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
