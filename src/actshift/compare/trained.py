"""Train what a cell trains, and load what it left: the only file here that touches a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actshift.training import FitResult, TrainSettings, train
from actshift.training.adapting import load_base
from actshift.training.inputs import read_inputs
from actshift.training.result import read_result
from actshift.training.run_folder import RunFolder
from actshift.tuner.lora import load_any_adapter

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def train_cell(settings: TrainSettings) -> FitResult:
    """Train as `settings` say, from where a run in the same folder stopped; `seconds` are those of all its phases."""
    run = RunFolder(Path(settings.out or ""))
    result = read_result(run.path) if run.finished else train(settings, resume=run.unfinished)
    before = result.selection.fit.seconds if result.selection else 0.0
    return replace(result.fit, seconds=result.fit.seconds + before)


def cell_model(settings: TrainSettings, trained: bool) -> tuple[Any, PreTrainedTokenizerBase]:
    """Return the model that `settings` trained, read from its folder, or the base that they start from.

    All methods are scored at one precision, in which a whole model needs no more than its base. The head is that of the
    rows, at its first weights where nothing was trained.
    """
    whole = trained and settings.method == "full"
    head = read_result(Path(str(settings.out))).head if trained else read_inputs(settings).head
    source = settings.out if whole else settings.model
    model, tokenizer = load_base(
        TrainSettings(model=source, precision=settings.precision, trust_remote_code=settings.trust_remote_code), head
    )
    if trained and not whole:
        model = load_any_adapter(model, str(settings.out)).eval()
    return model, tokenizer
