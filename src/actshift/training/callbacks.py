"""Callbacks of a training run: loss check, checkpoints, constraints and progress. Imports torch and transformers."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from actshift.errors import ActshiftError
from actshift.files import write_whole
from actshift.training.run_folder import COMPLETE, RunFolder
from actshift.tuner import enforce, steering_layers


class StopAtNan(TrainerCallback):
    """Stop a run if its loss is not finite, before such a state is saved."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Log the loss before each checkpoint, so that `on_log` checks it."""
        control.should_log |= control.should_save

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Raise ActshiftError if the loss is infinite or NaN."""
        loss = kwargs["logs"].get("loss", 0.0)
        if not math.isfinite(loss):
            raise ActshiftError(
                f"The loss became {loss} at step {state.global_step}; restart with a lower learning_rate (it was "
                f"{args.learning_rate:g}){' or precision fp32' if args.bf16 else ''}."
            )


class Checkpoints(TrainerCallback):
    """Mark each checkpoint as complete after it is written, remove old ones, and measure the time of the run."""

    def __init__(self, run: RunFolder, seconds_before: float = 0.0) -> None:
        self.run = run
        self.start = time.monotonic() - seconds_before

    @property
    def seconds(self) -> float:
        """The duration of the run in seconds, including the sessions before a resume."""
        return time.monotonic() - self.start

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Mark the new checkpoint, and keep it and the best one. At the last step the previous one stays too."""
        latest = Path(args.output_dir or "", f"checkpoint-{state.global_step}")
        write_whole(latest / COMPLETE, json.dumps({"seconds": self.seconds}))
        if state.global_step < state.max_steps:
            self.run.remove_all_but(latest, state.best_model_checkpoint)


class EnforceEachEpoch(TrainerCallback):
    """Enforce the constraints with the period "epoch" at the end of each epoch."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Enforce them after the epoch's last step, and not in `on_epoch_end`, which follows that step's checkpoint."""
        if float(state.epoch or 0).is_integer() and "epoch" in _constraint_periods(kwargs["model"]):
            enforce(kwargs["model"])


def finalize_adapters(model: nn.Module) -> None:
    """Finish the training of every adapter in `model`: round open gates to 0 or 1, and enforce all constraints."""
    for layer in steering_layers(model).values():
        for shift in layer.lora_steer.values():
            if any(parameter.requires_grad for parameter in shift.parameters()):
                shift.finish()  # type: ignore[operator]
    if _constraint_periods(model) - {None}:
        enforce(model)


def _constraint_periods(model: nn.Module) -> set[Any]:
    layers = steering_layers(model).values()
    return {constraint.period for layer in layers for constraint in layer.constraints.values()}


SHOWN_METRICS = (
    ("loss", "loss", ".4f"),
    ("reward", "reward", ".3f"),
    ("rewards/margins", "margin", ".3f"),
    ("learning_rate", "lr", ".1e"),
    ("eval_loss", "eval loss", ".4f"),
    ("eval_reward", "eval reward", ".3f"),
)
"""The trainer's log entries in the progress bar, with their names and formats there."""
LINES = 10
"""Number of progress lines that a run prints if stderr is not a terminal."""


class ProgressBar(TrainerCallback):
    """Show step, loss, learning rate and remaining time on stderr. The context manager removes the bar on errors."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.metrics: dict[str, str] = {}
        self.next_line = 1
        console = Console(stderr=True)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[metrics]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> ProgressBar:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Show the bar, from the step at which a resumed run continues."""
        self.task = self.bar.add_task(self.title, total=state.max_steps, completed=state.global_step, metrics="")
        self.first, self.start = state.global_step, time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Advance the bar."""
        self.bar.update(self.task, completed=state.global_step)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Show the latest metrics, in a new line if there is no bar."""
        for key, name, form in SHOWN_METRICS:
            if key in kwargs["logs"]:
                self.metrics[key] = f"{name} {kwargs['logs'][key]:{form}}"
        metrics = "  ".join(self.metrics.values())
        self.bar.update(self.task, metrics=metrics)
        if self.bar.disable and state.global_step >= self.next_line:
            self.next_line = state.global_step + max(1, state.max_steps // LINES)
            print(
                f"{self.title} {state.global_step}/{state.max_steps}  {metrics}  {self._time_left(state)}",
                file=sys.stderr,
            )

    def _time_left(self, state: TrainerState) -> str:
        done = state.global_step - self.first
        seconds = (time.monotonic() - self.start) / max(done, 1) * (state.max_steps - state.global_step)
        return f"{seconds // 60:.0f}:{seconds % 60:02.0f} left"
