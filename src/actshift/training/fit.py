"""The training loop as one call, for an adapter and for a whole model alike."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from actshift.head import labels_of
from actshift.training.encoding import Examples
from actshift.training.inputs import Inputs, objective_of_rows
from actshift.training.job import FitResult, Job
from actshift.training.objectives import OBJECTIVES
from actshift.training.run_folder import RunFolder
from actshift.training.settings import TrainSettings

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import nn
    from transformers import PreTrainedTokenizerBase


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
