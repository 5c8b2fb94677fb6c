"""One stretch of training, over its objective's trainer: a folder, what is read, and how; begun, and then run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from actshift.errors import ActshiftError
from actshift.extras import require
from actshift.head import CAUSAL, Head
from actshift.training.arguments import total_steps, trainer_arguments
from actshift.training.encoding import Examples
from actshift.training.ending import warn_of_unknown_end
from actshift.training.quiet import quiet, traceless
from actshift.training.run_folder import COMPLETE, RunFolder, read_json
from actshift.training.settings import TrainSettings

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class FitResult:
    """What a run came to: `train_loss` (the mean over its last steps) and `eval_loss` (the best) in nats a token.

    `figures` are what else its objective is judged by, such as the reward: of the first and the last steps, and of the
    rows for evaluation at the step that was kept.
    """

    steps: int
    train_loss: float
    eval_loss: float | None
    best_step: int
    rows: int
    left_out: int
    trainable: int
    parameters: int
    seconds: float
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Trainable parameters over all, 0 to 1."""
        return self.trainable / self.parameters


@dataclass(frozen=True)
class Job:
    """Training that is still to be done; what `fit` raises, these methods raise.

    With `resume` it goes on from the newest checkpoint in the folder, if there is one. Unless it is to `keep` its
    checkpoints it makes none.
    """

    folder: RunFolder
    tokenizer: PreTrainedTokenizerBase
    examples: Examples
    settings: TrainSettings
    resume: bool
    head: Head = CAUSAL
    keep: bool = True
    title: str = "Training"

    @property
    def steps(self) -> int:
        """How many optimiser steps there are in all."""
        return total_steps(len(self.examples.train.examples), self.settings)

    def begin(self, model: nn.Module) -> None:
        """Record the run in its folder, once nothing stands in its way."""
        require("trl", "train")
        trainable, _ = parameter_counts(model)
        if self.keep or self.examples.held_out:
            self.folder.check_space(trainable)
        if self.settings.cache_prefix != "off":
            from actshift.training.prefix import check_prefix

            check_prefix(model, self)
        self.folder.begin(self.settings, self.examples.digest, self.resume)

    def run(self, model: Any) -> FitResult:
        """Train the parameters of `model` that require gradients; the job has begun."""
        from actshift.training.callbacks import Checkpoints, StopAtNan
        from actshift.training.prefix import cached_prefix
        from actshift.training.progress import ProgressBar
        from actshift.training.promises import Epochs, settle

        steps, train, held_out = self.steps, self.examples.train, self.examples.held_out
        objective = self.examples.objective
        saves = self.keep or bool(held_out)  # the best state is kept as a checkpoint
        trainable, parameters = parameter_counts(model)
        latest = self.folder.latest(steps) if self.resume else None
        clock = Checkpoints(self.folder, seconds_before=read_json(latest / COMPLETE)["seconds"] if latest else 0.0)
        warn_of_unknown_end(model, self.tokenizer)
        with ProgressBar(self.title) as progress, quiet(), traceless(model), self.folder.space_explained(trainable):
            arguments = trainer_arguments(objective, self.settings, self.folder, steps, saves, evaluates=bool(held_out))
            trainer = objective.trainer(model, self, arguments, [StopAtNan(), Epochs(), clock, progress])
            with cached_prefix(model, self):
                trainer.train(resume_from_checkpoint=str(latest) if latest else None)
        settle(model.eval())
        history, best = trainer.state.log_history, trainer.state.best_global_step or steps
        return FitResult(
            steps=steps,
            train_loss=[entry["loss"] for entry in history if "loss" in entry][-1],
            eval_loss=min((entry["eval_loss"] for entry in history if "eval_loss" in entry), default=None),
            best_step=best,
            rows=len(train.examples),
            left_out=train.left_out,
            trainable=trainable,
            parameters=parameters,
            seconds=clock.seconds,
            figures=_figures(objective.figures, history, best),
        )


def _figures(names: Mapping[str, str], history: Sequence[Mapping[str, float]], best: int) -> dict[str, float]:
    """Return of what a trainer logged the entries called for, by their names."""
    figures: dict[str, float] = {}
    for entry in history:
        for key, name in names.items():
            if key in entry:
                figures.setdefault(f"{name} at the start", entry[key])
                figures[name] = entry[key]
            if f"eval_{key}" in entry and entry["step"] <= best:
                figures[f"{name}, held-out rows"] = entry[f"eval_{key}"]
    return figures


def parameter_counts(model: nn.Module) -> tuple[int, int]:
    """Return how many parameters of `model` are trained, and how many it has in all."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    trainable = sum(size for size, wanted in sizes if wanted)
    if not trainable:
        raise ActshiftError(f"No parameter of {type(model).__name__} requires gradients; attach an adapter first.")
    return trainable, sum(size for size, _ in sizes)
