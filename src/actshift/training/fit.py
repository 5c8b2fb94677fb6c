"""The training loop, over TRL's SFTTrainer: for an adapter and for a whole model alike."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

from actshift.errors import ActshiftError
from actshift.extras import require
from actshift.training.arguments import total_steps, trainer_arguments
from actshift.training.encoding import Encoded, encode
from actshift.training.ending import warn_of_unknown_end
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
    require("trl", "train")
    train = encode(train_rows, tokenizer, settings.max_length)
    held_out = encode(eval_rows, tokenizer, settings.max_length) if eval_rows is not None else None
    warn_of_unknown_end(model, tokenizer)
    with TemporaryDirectory() as scratch, _quiet(), _traceless(model):
        run = RunFolder(Path(out or scratch))
        if out or held_out:
            run.check_space(parameter_counts(model)[0])
        run.begin(settings, train.digest + (held_out.digest if held_out else ""), resume)
        return _run(model, tokenizer, train, held_out, settings, run, resume, title, keep=out is not None)


def _run(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    train: Encoded,
    held_out: Encoded | None,
    settings: TrainSettings,
    run: RunFolder,
    resume: bool,
    title: str,
    keep: bool,
) -> FitResult:
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    from actshift.training.progress import ProgressBar
    from actshift.training.trainer import Checkpoints, StopAtNan, Trainer

    steps = total_steps(len(train.examples), settings)
    saves = keep or held_out is not None
    trainable, parameters = parameter_counts(model)
    latest = run.latest(steps) if resume else None
    clock = Checkpoints(run, seconds_before=read_json(latest / COMPLETE)["seconds"] if latest else 0.0)
    pad = cast(int, tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)
    with ProgressBar(title) as progress, run.space_explained(trainable):
        trainer = Trainer(
            model,
            trainer_arguments(settings, run, steps, saves, evaluates=held_out is not None),
            data_collator=DataCollatorForLanguageModeling(pad_token_id=pad),
            train_dataset=Dataset.from_list(train.examples),
            eval_dataset=Dataset.from_list(held_out.examples) if held_out else None,
            processing_class=tokenizer,
            callbacks=[StopAtNan(), clock, progress],
        )
        trainer.processing_class = None  # else it aligns the model's special tokens, and saves a copy a checkpoint
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=str(latest) if latest else None)
    model.eval()
    history = trainer.state.log_history
    return FitResult(
        steps=steps,
        train_loss=[entry["loss"] for entry in history if "loss" in entry][-1],
        eval_loss=min((entry["eval_loss"] for entry in history if "eval_loss" in entry), default=None),
        best_step=trainer.state.best_global_step or steps,
        rows=len(train.examples),
        left_out=train.left_out,
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


@contextmanager
def _traceless(model: Any) -> Iterator[None]:
    """Undo what the trainer does to a model beside training it.

    It puts a fused loss and autocast on `forward`, which would pile up and break pickling, and switches the cache off.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
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
def _quiet() -> Iterator[None]:
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
