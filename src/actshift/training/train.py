"""The whole verb: read, adapt, train, and leave a folder that PEFT (or, for every weight, transformers) can load."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actshift.files import write_whole
from actshift.training.arguments import quiet_libraries
from actshift.training.build import adapt, check_names, first_weights, load_base
from actshift.training.card import model_card
from actshift.training.data import Examples, read_inputs, require_setting
from actshift.training.fit import Job
from actshift.training.lofit import phases, select_heads
from actshift.training.result import TrainResult, read_result
from actshift.training.run_folder import METRICS, RunFolder
from actshift.training.settings import TrainSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def train(settings: TrainSettings, resume: bool = False) -> TrainResult:
    """Train a model as `settings` say, and save the result with a model card and metrics.json in the folder `out`.

    The result is an adapter, PEFT's own LoRA or a whole model, by `settings.method`. `resume` goes on with a run that
    was stopped at any moment; one that is finished already is only reported.

    Raises:
        ActshiftError: a setting that is missing or wrong, a model or rows that cannot be read, an adapter that does
            not fit the model, an `out` that holds something else; all before anything is written. Later: a
            loss that is no number, a full disk.

    Example:
        >>> train(TrainSettings(model="gpt2", data="rows.jsonl", out="run"))  # doctest: +SKIP
    """
    run = RunFolder(Path(require_setting(settings, "out")))
    if resume and run.finished:
        run.tidy()
        warnings.warn(f"The run in {run.path} is finished already; nothing is left to resume.", stacklevel=2)
        return read_result(run.path)
    run.check(settings, resume)
    check_names(settings)  # before hours of loading
    inputs = read_inputs(settings)
    model, tokenizer = load_base(settings, inputs.head)
    job = Job(run, tokenizer, Examples.of(inputs, tokenizer, settings), settings, resume, inputs.head)
    trained, result = (_two_phases if settings.two_phases else _one_phase)(model, job)
    with run.space_explained(result.fit.trainable):
        run.finish(_save(trained, tokenizer, result, run))
    return result


def _one_phase(model: Any, job: Job) -> tuple[Any, TrainResult]:
    adapted = adapt(model, job.settings, job.steps, head=job.head)
    first_weights(adapted, job)
    job.begin(adapted)
    return adapted, TrainResult(job.settings, job.run(adapted), head=job.head)


def _two_phases(model: Any, job: Job) -> tuple[Any, TrainResult]:
    model, selection = select_heads(model, job)
    _, steps = phases(job.steps, job.settings)
    adapted = adapt(model, job.settings, heads=selection.heads, head=job.head)
    phase = replace(job, settings=replace(job.settings, max_steps=steps), title="LoFiT 2 of 2, shifting heads")
    return adapted, TrainResult(job.settings, phase.run(adapted), selection, job.head)


def _save(model: Any, tokenizer: PreTrainedTokenizerBase, result: TrainResult, run: RunFolder) -> Path:
    folder = run.checkpoints / "result"
    with quiet_libraries():
        if result.settings.method == "full":
            model.save_pretrained(str(folder))
            tokenizer.save_pretrained(str(folder))
        else:
            model.save_pretrained(str(folder), save_embedding_layers=False)  # True or "auto" may ask the hub
    write_whole(folder / METRICS, json.dumps(result.to_dict(), indent=2) + "\n")
    write_whole(folder / "README.md", model_card(result))
    return folder
