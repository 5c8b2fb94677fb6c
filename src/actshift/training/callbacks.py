"""What happens beside the steps of a run: a look at the loss, and whole checkpoints."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from actshift.errors import ActshiftError
from actshift.files import write_whole
from actshift.training.run_folder import COMPLETE, RunFolder


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
