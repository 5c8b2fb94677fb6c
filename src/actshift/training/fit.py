"""The training loop, over TRL's SFTTrainer: for an adapter and for a whole model alike."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from actshift.errors import ActshiftError
from actshift.extras import require
from actshift.training.arguments import total_steps, trainer_arguments
from actshift.training.encoding import Examples
from actshift.training.ending import warn_of_unknown_end
from actshift.training.quiet import quiet, traceless
from actshift.training.run_folder import COMPLETE, RunFolder, read_json
from actshift.training.settings import TrainSettings

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import nn
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class FitResult:
    """What a run came to: `train_loss` (the mean over its last steps) and `eval_loss` (the best) in nats a token."""

    steps: int
    train_loss: float
    eval_loss: float | None
    best_step: int
    rows: int
    left_out: int
    trainable: int
    parameters: int
    seconds: float

    @property
    def share(self) -> float:
        """Trainable parameters over all, 0 to 1."""
        return self.trainable / self.parameters


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
    examples = Examples.of(train_rows, eval_rows, tokenizer, settings.max_length)
    with TemporaryDirectory() as scratch:
        run = RunFolder(Path(out or scratch))
        begin(run, model, examples, settings, resume, keep=out is not None)
        return go_on(run, model, tokenizer, examples, settings, resume, keep=out is not None, title=title)


def begin(
    run: RunFolder, model: nn.Module, examples: Examples, settings: TrainSettings, resume: bool, keep: bool = True
) -> None:
    """Record a run in its folder, once nothing stands in its way: what `fit` raises, it raises here."""
    require("trl", "train")
    trainable, _ = parameter_counts(model)
    if keep or examples.held_out:
        run.check_space(trainable)
    run.begin(settings, examples.digest, resume)


def go_on(
    run: RunFolder,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    examples: Examples,
    settings: TrainSettings,
    resume: bool,
    keep: bool = True,
    title: str = "Training",
) -> FitResult:
    """Train as a run that has begun says, with `resume` from its newest checkpoint, if there is one."""
    from actshift.training.callbacks import Checkpoints, StopAtNan
    from actshift.training.progress import ProgressBar
    from actshift.training.promises import Epochs, settle
    from actshift.training.trainer import Trainer, collator, dataset

    steps = total_steps(len(examples.train.examples), settings)
    trainable, parameters = parameter_counts(model)
    latest = run.latest(steps) if resume else None
    clock = Checkpoints(run, seconds_before=read_json(latest / COMPLETE)["seconds"] if latest else 0.0)
    warn_of_unknown_end(model, tokenizer)
    with ProgressBar(title) as progress, quiet(), traceless(model), run.space_explained(trainable):
        trainer = Trainer(
            model,
            trainer_arguments(settings, run, steps, keep or bool(examples.held_out), evaluates=bool(examples.held_out)),
            lora_learning_rate=settings.lora_learning_rate,
            data_collator=collator(tokenizer),
            train_dataset=dataset(examples.train),
            eval_dataset=dataset(examples.held_out) if examples.held_out else None,
            processing_class=tokenizer,
            callbacks=[StopAtNan(), Epochs(), clock, progress],
        )
        trainer.train(resume_from_checkpoint=str(latest) if latest else None)
    settle(model.eval())
    history = trainer.state.log_history
    return FitResult(
        steps=steps,
        train_loss=[entry["loss"] for entry in history if "loss" in entry][-1],
        eval_loss=min((entry["eval_loss"] for entry in history if "eval_loss" in entry), default=None),
        best_step=trainer.state.best_global_step or steps,
        rows=len(examples.train.examples),
        left_out=examples.train.left_out,
        trainable=trainable,
        parameters=parameters,
        seconds=clock.seconds,
    )


def parameter_counts(model: nn.Module) -> tuple[int, int]:
    """Return how many parameters of `model` are trained, and how many it has in all."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    trainable = sum(size for size, wanted in sizes if wanted)
    if not trainable:
        raise ActshiftError(f"No parameter of {type(model).__name__} requires gradients; attach an adapter first.")
    return trainable, sum(size for size, _ in sizes)
