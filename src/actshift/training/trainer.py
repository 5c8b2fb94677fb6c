"""The trainer of a run: batches, optimiser, callbacks, and clean-up after training. Imports torch and transformers."""

import math
import sys
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, cast

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Sampler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging

from actshift.errors import ActshiftError
from actshift.sites.blocks import unwrap
from actshift.training.divergence import MAX_WEIGHT, diverged, magnitudes, trained_parameters
from actshift.training.run_folder import COMPLETE, RunFolder, read_json
from actshift.training.settings import TrainSettings
from actshift.tuner import enforce, parameter_groups, steering_layers

SHOWN_METRICS = {
    "loss": "loss {:.4f}",
    "reward": "reward {:.3f}",
    "rewards/margins": "margin {:.3f}",
    "learning_rate": "lr {:.1e}",
    "eval_loss": "eval loss {:.4f}",
    "eval_reward": "eval reward {:.3f}",
}  # the trainer's log entries in the progress bar, with their form there


class TrainerMixin(Trainer):
    """Mixin for trainers of transformers and TRL: length-grouped batches, a learning rate for LoRA, no model card."""

    def __init__(self, *args: Any, lora_learning_rate: float | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lora_learning_rate = lora_learning_rate
        # With a tokenizer the trainer would change the model's special tokens and save a copy in every checkpoint.
        self.processing_class = None
        self.remove_callback(PrinterCallback)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Optimizer:
        """Split each parameter group (with and without weight decay) into adapter and LoRA, with their own rates."""
        is_new, optimizer = self.optimizer is None, super().create_optimizer(*args, **kwargs)
        if is_new and self.lora_learning_rate is not None:
            halves = parameter_groups(cast(Any, self.model), self.args.learning_rate, self.lora_learning_rate)
            members = [{id(parameter) for parameter in half["params"]} for half in halves]
            optimizer.param_groups[:] = [
                {**group, **half, "params": shared}
                for group in optimizer.param_groups
                for half, ids in zip(halves, members, strict=True)
                if (shared := [parameter for parameter in group["params"] if id(parameter) in ids])
            ]
        return optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Optimizer | None = None) -> Any:
        """Start the warm-up above 0: the first step of transformers has a learning rate of 0 and changes nothing."""
        is_new = cast("LambdaLR | None", self.lr_scheduler) is None
        scheduler = cast(LambdaLR, super().create_scheduler(num_training_steps, optimizer))
        if is_new and (warmup := self.args.get_warmup_steps(num_training_steps)):
            factors = [partial(_warm_up, factor, warmup) for factor in scheduler.lr_lambdas]
            self.lr_scheduler = LambdaLR(scheduler.optimizer, factors)
        return self.lr_scheduler

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        fixed_batches = not getattr(self, "in_batch_negatives", False)  # these need other batches in each epoch
        if self.args.train_sampling_strategy != "group_by_length" or not fixed_batches:
            return super()._get_train_sampler(train_dataset)
        rows: Any = self.train_dataset if train_dataset is None else train_dataset
        return LengthGroupedSampler(lengths_of(rows), self.args.train_batch_size, self.args.seed)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log the learning rates of both parameter groups."""
        if "learning_rate" in logs and self.lora_learning_rate is not None:
            rates = {group["name"]: group["lr"] for group in cast(Optimizer, self.optimizer).param_groups}
            logs |= {"learning_rate": rates["activations"], "lora_learning_rate": rates["weights"]}
        super().log(logs, *args, **kwargs)

    def _send_telemetry(self) -> None:
        """Do nothing: TRL sends usage statistics to the hub, and training contacts no network."""

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: `train` writes one model card with the result."""


def _warm_up(factor: Callable[[int], float], warmup: int, step: int) -> float:
    """Return the share of the learning rate at a step: a line up to 1 during the warm-up, then `factor(step)`.

    >>> [_warm_up(lambda step: 1.0, 3, step) for step in range(5)]
    [0.25, 0.5, 0.75, 1.0, 1.0]
    """
    return (step + 1) / (warmup + 1) if step < warmup else factor(step)


class LengthGroupedSampler(Sampler[int]):
    """A sampler of batches of similar length, the same ones in every epoch, in an order that each epoch shuffles.

    The sampler of transformers draws new batches. The rows of an incomplete batch are drawn at random and come last.

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
        """Set the epoch, which seeds the order of the batches; a resumed run repeats it."""
        self.epoch = epoch


def lengths_of(examples: Iterable[Mapping[str, Any]]) -> list[int]:
    """Return the number of tokens of each example, or of the longer text of a pair.

    >>> lengths_of([{"input_ids": [5, 6], "pair_input_ids": [7], "labels": 1}])
    [2]
    """
    return [max(len(value) for value in example.values() if isinstance(value, list)) for example in examples]


class StopAtNan(TrainerCallback):
    """Stop a run that diverges, before such a state is saved."""

    def __init__(self) -> None:
        self.limit = MAX_WEIGHT

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Raise the limit for a base model with large weights of its own."""
        sizes = magnitudes(trained_parameters(kwargs["model"])).values()
        self.limit = max([MAX_WEIGHT, *(10 * size for size in sizes if math.isfinite(size))])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Check weights and optimiser before each checkpoint and at the end, and log the loss for `on_log`."""
        control.should_log |= control.should_save
        if control.should_save or state.global_step >= state.max_steps:
            self.check_weights(kwargs["model"], state.global_step, args.learning_rate, args.bf16)
            for moments in cast(Optimizer, kwargs["optimizer"]).state.values():
                for name, size in magnitudes(moments.items()).items():
                    if not math.isfinite(size):
                        problem = f"The run diverged: the optimiser's {name} is {size} after step {state.global_step}"
                        raise diverged(problem, args.learning_rate, args.bf16)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Raise ActshiftError if the loss in training or in an evaluation is infinite or NaN."""
        for key, name in (("loss", "loss"), (args.metric_for_best_model, "evaluation loss")):
            value = kwargs["logs"].get(key, 0.0) if key in ("loss", "eval_loss") else 0.0
            if not math.isfinite(value):
                problem = f"The {name} became {value} at step {state.global_step}"
                raise diverged(problem, args.learning_rate, args.bf16)

    def check_weights(self, model: nn.Module, step: int, rate: float, bf16: bool = False) -> None:
        """Raise ActshiftError if a trained weight is not finite, or is too large for half precision."""
        for name, size in magnitudes(trained_parameters(model)).items():
            if not size <= self.limit:
                problem = f"The run diverged: the largest weight of {name} is {size:.3g} after step {step}"
                raise diverged(problem, rate, bf16)


class Checkpoints(TrainerCallback):
    """Mark each checkpoint as complete after it is written, remove old ones, and measure the time of the run.

    Attributes:
        latest: the newest complete checkpoint; at first the one from which the run is resumed, if any.
        running: True after the first step has begun, when a checkpoint has been loaded.
    """

    def __init__(self, run: RunFolder, latest: Path | None = None) -> None:
        self.run, self.latest, self.running = run, latest, False
        self.start = time.monotonic() - (read_json(latest / COMPLETE)["seconds"] if latest else 0.0)

    @property
    def seconds(self) -> float:
        """The duration of the run in seconds, including the sessions before a resume."""
        return time.monotonic() - self.start

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Find the best checkpoint again if the folder was moved, or is called by another name."""
        if state.best_global_step is not None:
            state.best_model_checkpoint = str(self.run.checkpoints / f"checkpoint-{state.best_global_step}")

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        """Note that the run has begun."""
        self.running = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Before each save, keep only the latest checkpoint and the best one."""
        if control.should_save:
            self.run.remove_all_but(self.latest, state.best_model_checkpoint)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Mark the new checkpoint as complete."""
        self.latest = Path(args.output_dir or "", f"checkpoint-{state.global_step}")
        self.run.complete(self.latest, self.seconds, state.best_global_step)


class EnforceEachEpoch(TrainerCallback):
    """Enforce the constraints with the period "epoch" at the end of each epoch."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Enforce them after the epoch's last step, and not in `on_epoch_end`, which follows that step's checkpoint."""
        if float(state.epoch or 0).is_integer() and "epoch" in _constraint_periods(kwargs["model"]):
            enforce(kwargs["model"])


def finalize_adapters(model: nn.Module) -> None:
    """Finish the training of every adapter in `model`: round open gates to 0 or 1, and enforce all constraints."""
    for shift in (shift for layer in steering_layers(model).values() for shift in layer.lora_steer.values()):
        if any(parameter.requires_grad for parameter in shift.parameters()):
            shift.finish()  # type: ignore[operator]
    if _constraint_periods(model) - {None}:
        enforce(model)


def _constraint_periods(model: nn.Module) -> set[Any]:
    layers = steering_layers(model).values()
    return {constraint.period for layer in layers for constraint in layer.constraints.values()}


class ProgressBar(TrainerCallback):
    """Show step, loss, learning rate and remaining time on stderr; `bar` is a context manager."""

    def __init__(self, title: str) -> None:
        self.title, self.next_line = title, 1
        self.metrics: dict[str, str] = {}
        console, metrics = Console(stderr=True), TextColumn("{task.fields[metrics]}")
        columns = "{task.description}", BarColumn(), MofNCompleteColumn(), metrics, TimeRemainingColumn()
        self.bar = Progress(*columns, console=console, disable=not console.is_terminal)

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Show the bar, from the step at which a resumed run continues."""
        self.task = self.bar.add_task(self.title, total=state.max_steps, completed=state.global_step, metrics="")
        self.first, self.start = state.global_step, time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Advance the bar."""
        self.bar.update(self.task, completed=state.global_step)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Show the latest metrics; without a bar, print about ten lines in a run."""
        logs = kwargs["logs"]
        self.metrics |= {key: form.format(logs[key]) for key, form in SHOWN_METRICS.items() if key in logs}
        metrics = "  ".join(self.metrics.values())
        self.bar.update(self.task, metrics=metrics)
        if self.bar.disable and state.global_step >= self.next_line:
            self.next_line = state.global_step + max(1, state.max_steps // 10)
            per_step = (time.monotonic() - self.start) / max(state.global_step - self.first, 1)
            minutes, seconds = divmod(per_step * (state.max_steps - state.global_step), 60)
            step, left = f"{state.global_step}/{state.max_steps}", f"{minutes:.0f}:{seconds:02.0f} left"
            print(f"{self.title} {step}  {metrics}  {left}", file=sys.stderr)


def uses_bf16(settings: TrainSettings) -> bool:
    """Return True if a run computes in bfloat16: on request, or by default on a GPU with hardware support.

    Raises ActshiftError if bf16 is requested on a GPU without support.
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
    with ExitStack() as undo:
        undo.callback(setattr, inner.config, "use_cache", inner.config.use_cache)
        for module in (model, inner):
            undo.callback(restore_forward, module, module.__dict__.get("forward"))
            undo.callback(module.__dict__.pop, "_original_forward", None)
        yield


def restore_forward(module: nn.Module, forward: Any) -> None:
    """Undo an assignment to `module.forward`; `forward` is the attribute of the instance before it, or None."""
    module.__dict__.pop("forward", None)
    if forward is not None:
        module.forward = forward


@contextmanager
def quiet_libraries() -> Generator[None, None, None]:
    """Hide progress bars, log messages and FutureWarnings of transformers and TRL. Errors are still logged."""
    with ExitStack() as undo, warnings.catch_warnings():
        undo.callback(logging.set_verbosity, logging.get_verbosity())
        if logging.is_progress_bar_enabled():
            undo.callback(logging.enable_progress_bar)
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        warnings.simplefilter("ignore", FutureWarning)
        yield
