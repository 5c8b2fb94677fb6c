"""What happens beside the steps of a run: a look at the loss, and whole checkpoints."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from actshift.errors import ActshiftError
from actshift.files import write_whole
from actshift.training.run_folder import COMPLETE, RunFolder
from actshift.tuner import enforce, steering_layers

if TYPE_CHECKING:
    pass


class StopAtNan(TrainerCallback):
    """Ends a run whose loss is no longer a number, before such a state is saved."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Have the loss looked at before each checkpoint."""
        control.should_log |= control.should_save

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Raise ActshiftError where the loss is infinite or not a number."""
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            raise ActshiftError(
                f"The loss became {loss} at step {state.global_step}; start anew with a lower learning_rate (it was "
                f"{args.learning_rate:g}){' or precision fp32' if args.bf16 else ''}."
            )


class Checkpoints(TrainerCallback):
    """Marks each checkpoint as complete once all of it is written, and then drops those no longer needed."""

    def __init__(self, run: RunFolder, seconds_before: float = 0.0) -> None:
        self.run = run
        self.start = time.monotonic() - seconds_before

    @property
    def seconds(self) -> float:
        """How long the run has taken, sessions before a resume included."""
        return time.monotonic() - self.start

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Mark the checkpoint just written; keep it, the best one, and at the very end the one before."""
        latest = Path(args.output_dir or "", f"checkpoint-{state.global_step}")
        write_whole(latest / COMPLETE, json.dumps({"seconds": self.seconds}))
        if state.global_step < state.max_steps:
            self.run.remove_all_but(latest, state.best_model_checkpoint)


class EnforceEachEpoch(TrainerCallback):
    """Enforces at the end of each epoch what an adapter promises of itself by the epoch."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Enforce it after an epoch's last step; `on_epoch_end` comes after that step's checkpoint is saved."""
        if float(state.epoch or 0).is_integer() and "epoch" in _periods(model):
            enforce(model)


def finalize_adapters(model: nn.Module) -> None:
    """End the training of every adapter in `model`: open gates become 0 or 1, and a rule of k steps holds exactly."""
    for layer in steering_layers(model).values():
        for shift in layer.lora_steer.values():
            if any(parameter.requires_grad for parameter in shift.parameters()):
                shift.finish()  # type: ignore[operator]
    if _periods(model) - {None}:
        enforce(model)


def _periods(model: nn.Module) -> set[Any]:
    layers = steering_layers(model).values()
    return {constraint.period for layer in layers for constraint in layer.constraints.values()}


SAME = 0.01
"""Embeddings whose distance is this share of their norm have not been told apart by any training."""


FIGURES = (
    ("loss", "loss", ".4f"),
    ("reward", "reward", ".3f"),
    ("rewards/margins", "margin", ".3f"),
    ("learning_rate", "lr", ".1e"),
    ("eval_loss", "eval loss", ".4f"),
    ("eval_reward", "eval reward", ".3f"),
)
LINES = 10
"""How many lines a run prints where there is no terminal."""


class ProgressBar(TrainerCallback):
    """Shows step, loss, learning rate and time left on stderr; as a context manager it always takes its bar down."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.figures: dict[str, str] = {}
        self.next_line = 1
        console = Console(stderr=True)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
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
        """Show the bar, from where a resumed run goes on."""
        self.task = self.bar.add_task(self.title, total=state.max_steps, completed=state.global_step, figures="")
        self.first, self.start = state.global_step, time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Advance, and have the figures looked at often enough for a line now and then."""
        self.bar.update(self.task, completed=state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Show the latest figures, in a line of their own where there is no bar."""
        for key, name, form in FIGURES:
            if key in (logs or {}):
                self.figures[key] = f"{name} {(logs or {})[key]:{form}}"
        figures = "  ".join(self.figures.values())
        self.bar.update(self.task, figures=figures)
        if self.bar.disable and state.global_step >= self.next_line:
            self.next_line = state.global_step + max(1, state.max_steps // LINES)
            print(
                f"{self.title} {state.global_step}/{state.max_steps}  {figures}  {self._left(state)}", file=sys.stderr
            )

    def _left(self, state: TrainerState) -> str:
        done = state.global_step - self.first
        seconds = (time.monotonic() - self.start) / max(done, 1) * (state.max_steps - state.global_step)
        return f"{seconds // 60:.0f}:{seconds % 60:02.0f} left"
