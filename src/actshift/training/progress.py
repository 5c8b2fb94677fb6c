"""Live progress of a training run: a bar in a terminal, a line now and then elsewhere. Imports transformers."""

from __future__ import annotations

import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

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
