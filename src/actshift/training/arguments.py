"""What a trainer is told: our settings, with the steps, the precision and the pace that follow from them."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from actshift.errors import ActshiftError
from actshift.training.run_folder import RunFolder
from actshift.training.settings import TrainSettings

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from actshift.training.objectives import Objective


@contextmanager
def restore_model_after(model: Any) -> Iterator[None]:
    """Undo what the trainer does to a model beside training it.

    It puts a fused loss and autocast on `forward`, which would pile up and break pickling, and switches the cache off.
    """
    from actshift.sites.blocks import unwrap

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
def quiet_libraries() -> Iterator[None]:
    """Keep the libraries' bars and advice, which concern our calls, out of the way of our own progress."""
    from transformers.utils import logging

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


LOGS = 100
"""How many times about a run looks at its loss."""
CHECKPOINTS = 10
"""How many times about a run saves its state (and evaluates), where save_steps does not say."""


def total_steps(rows: int, settings: TrainSettings) -> int:
    """Return the number of optimiser steps of a run over `rows` examples, each of which may be sampled from.

    >>> total_steps(100, TrainSettings(batch_size=8, gradient_accumulation=2))
    7
    """
    if settings.max_steps is not None:
        return settings.max_steps
    batches = math.ceil(rows * settings.samples / settings.batch_size)
    return math.ceil(settings.epochs * math.ceil(batches / settings.gradient_accumulation))


def uses_bf16(settings: TrainSettings) -> bool:
    """Whether a run computes in bfloat16: if asked to, or on a GPU that does so in hardware.

    Raises ActshiftError where bf16 is asked of a GPU that does not.
    """
    import torch

    able = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    if settings.precision == "bf16" and torch.cuda.is_available() and not able:
        raise ActshiftError(f"{torch.cuda.get_device_name()} does not compute in bf16; use precision fp32.")
    return settings.precision == "bf16" or (settings.precision == "auto" and able)


def trainer_arguments(
    objective: Objective, settings: TrainSettings, run: RunFolder, steps: int, saves: bool, evaluates: bool
) -> TrainingArguments:
    """Return what the objective's trainer is told for a run of `steps` steps that saves, and evaluates, as told.

    Raises ActshiftError where several GPUs are visible to this one process, which TRL does not train on.
    """
    import torch

    if torch.cuda.device_count() > 1 and "WORLD_SIZE" not in os.environ:
        raise ActshiftError(f"{torch.cuda.device_count()} GPUs are visible; choose one: CUDA_VISIBLE_DEVICES=0.")
    every = settings.save_steps or math.ceil(steps / CHECKPOINTS)
    return objective.arguments(
        settings,
        output_dir=str(run.checkpoints),
        learning_rate=settings.rate,
        max_steps=steps,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        warmup_steps=settings.warmup,  # below 1: a share of the steps
        weight_decay=settings.weight_decay,
        lr_scheduler_type="constant_with_warmup" if settings.schedule == "constant" else settings.schedule,
        seed=settings.seed,
        bf16=uses_bf16(settings),
        use_cpu=uses_bf16(settings) and not torch.cuda.is_available(),  # without this it wants a GPU for bf16
        gradient_checkpointing=settings.gradient_checkpointing,
        logging_steps=max(1, steps // LOGS),
        logging_nan_inf_filter=False,  # we stop at such a loss
        save_strategy="steps" if saves else "no",
        save_steps=every,
        eval_strategy="steps" if evaluates else "no",
        eval_steps=every,
        load_best_model_at_end=evaluates,
        metric_for_best_model="eval_loss" if evaluates else None,
        train_sampling_strategy="group_by_length" if settings.group_by_length else "random",
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=True,
        report_to="none",
    )
