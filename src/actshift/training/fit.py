"""The training loop as one call, for an adapter and for a whole model alike."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from actshift.errors import ActshiftError, require
from actshift.model_head import CAUSAL, Head, labels_of
from actshift.training.arguments import quiet_libraries, restore_model_after, total_steps, trainer_arguments
from actshift.training.data import Examples, Inputs, objective_of_rows
from actshift.training.objectives import OBJECTIVES
from actshift.training.run_folder import COMPLETE, RunFolder, read_json
from actshift.training.settings import TrainSettings

if TYPE_CHECKING:
    from datasets import Dataset
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
            from actshift.training.prefix_cache import check_prefix

            check_prefix(model, self)
        self.folder.begin(self.settings, self.examples.digest, self.resume)

    def run(self, model: Any) -> FitResult:
        """Train the parameters of `model` that require gradients; the job has begun."""
        from actshift.training.callbacks import Checkpoints, EnforceEachEpoch, ProgressBar, StopAtNan, finalize_adapters
        from actshift.training.prefix_cache import cached_prefix

        steps, train, held_out = self.steps, self.examples.train, self.examples.held_out
        objective = self.examples.objective
        saves = self.keep or bool(held_out)  # the best state is kept as a checkpoint
        trainable, parameters = parameter_counts(model)
        latest = self.folder.latest(steps) if self.resume else None
        clock = Checkpoints(self.folder, seconds_before=read_json(latest / COMPLETE)["seconds"] if latest else 0.0)
        warn_of_unknown_end(model, self.tokenizer)
        with (
            ProgressBar(self.title) as progress,
            quiet_libraries(),
            restore_model_after(model),
            self.folder.space_explained(trainable),
        ):
            arguments = trainer_arguments(objective, self.settings, self.folder, steps, saves, evaluates=bool(held_out))
            trainer = objective.trainer(model, self, arguments, [StopAtNan(), EnforceEachEpoch(), clock, progress])
            with cached_prefix(model, self):
                trainer.train(resume_from_checkpoint=str(latest) if latest else None)
        finalize_adapters(model.eval())
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


def fit(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    train_rows: Dataset,
    settings: TrainSettings,
    eval_rows: Dataset | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    *,
    title: str = "Training",
) -> FitResult:
    """Train the parameters of `model` that require gradients, in place, and leave it in evaluation mode.

    The loss counts completions only (a text counts whole). With `eval_rows` the state of lowest evaluation loss
    is kept, else the last. With `out`, checkpoints go to `out/checkpoints`, and `resume=True` goes on from the
    newest: on a CPU to the very bits of an uninterrupted run. They stay until the caller has saved its result.

    Raises:
        ActshiftError: trl is not installed, nothing to train, every row too long, a loss that is not a number, no
            space for a checkpoint, or an `out` that another run began, with other settings or rows.

    Example:
        >>> from actshift.demo import load_base
        >>> model, tokenizer = load_base()
        >>> fit(model, tokenizer, load_rows("rows.jsonl"), TrainSettings(learning_rate=1e-4))  # doctest: +SKIP
    """
    objective = OBJECTIVES[settings.objective] if settings.objective else objective_of_rows(train_rows)
    inputs = Inputs(objective, train_rows, eval_rows, objective.head(train_rows, labels_of(model.config)))
    examples = Examples.of(inputs, tokenizer, settings)
    with TemporaryDirectory() as scratch:
        run = RunFolder(Path(out or scratch))
        job = Job(run, tokenizer, examples, settings, resume, keep=out is not None, title=title)
        job.begin(model)
        return job.run(model)


SAME = 0.01
"""Embeddings whose distance is this share of their norm have not been told apart by any training."""


def warn_of_unknown_end(model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Warn where the end-of-text token's output embedding is frozen and, but for noise, that of other tokens too.

    All tokens that a pretraining corpus lacks end up with one embedding, so their probabilities stay equal whatever
    the hidden state: such an end is never the likeliest token, and its loss never below log(how many there are).
    """
    head = model.get_output_embeddings()
    if head is None or head.weight.requires_grad:
        return
    weights = head.weight.detach()
    end = weights[tokenizer.eos_token_id].float()
    same = sum(int(((part.float() - end).norm(dim=1) < SAME * end.norm()).sum()) for part in weights.split(8192)) - 1
    if same:
        warnings.warn(
            f"The model cannot tell its end-of-text token {tokenizer.eos_token!r} from {same} others that it never saw "
            "either, and will not learn to stop; save its tokenizer with an eos_token that it knows.",
            stacklevel=2,
        )


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
