"""The whole of `actshift train`: read, build, train, and save a folder that PEFT or transformers can load."""

import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from actshift.files import write_atomically
from actshift.training.build import adapt, load_base, set_initial_weights
from actshift.training.card import model_card
from actshift.training.configs import AdapterSpec
from actshift.training.data import read_inputs
from actshift.training.fit import TrainingRun
from actshift.training.lofit import phases, select_heads
from actshift.training.result import ChatRecord, TrainResult, read_result
from actshift.training.run_folder import METRICS, RunFolder
from actshift.training.settings import TrainSettings, require_setting


def train(settings: TrainSettings, resume: bool = False) -> TrainResult:
    """Train a model, and save the result with a model card and metrics.json in the folder `out`.

    The result is a steering adapter, a LoRA adapter of PEFT, both, or a whole model, depending on `method`.

    Args:
        resume: continue an interrupted run. A finished one is only reported.

    Raises:
        ActshiftError: before anything is written, if a setting is wrong, the model or the rows cannot be read, the
            adapter does not fit, `out` is not empty, or another process trains in it. Later, if the run diverges, or
            the disk is full.

    Example:
        >>> train(TrainSettings(model="gpt2", data="rows.jsonl", out="run"))  # doctest: +SKIP
    """
    folder = RunFolder(Path(require_setting(settings, "out")))
    if resume and folder.finished:
        result = read_result(folder.path)
        shutil.rmtree(folder.checkpoints, ignore_errors=True)
        warnings.warn(f"The run in {folder.path} is already finished; there is nothing to resume.", stacklevel=2)
        return replace(result, settings=replace(result.settings, out=settings.out))  # the folder may have been moved
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the run repeats the check, and its warnings, when it starts
        folder.check(settings, resume)
    with folder.locked():
        return _train(settings, folder, resume)


def _train(settings: TrainSettings, folder: RunFolder, resume: bool) -> TrainResult:
    spec = AdapterSpec.from_settings(settings)
    inputs = read_inputs(settings)
    model, tokenizer = load_base(settings, inputs.head, inputs.config)
    run = TrainingRun(folder, inputs.objective, inputs.examples(tokenizer, settings), settings, resume)
    selection = None
    if settings.two_phases:
        model, selection = select_heads(model, spec, inputs.head, run)
        adapted = adapt(model, spec, heads=selection.heads, head=inputs.head)
        second = replace(settings, max_steps=phases(run.steps, settings)[1])
        run = replace(run, settings=second, title="LoFiT 2 of 2, training shifts")
    else:
        adapted = adapt(model, spec, run.steps, head=inputs.head)
        set_initial_weights(adapted, spec, run.examples)
        run.start(adapted)
    chat = ChatRecord.of_rows(inputs.rows)
    result = TrainResult(settings, run.train(adapted), selection, inputs.head, chat)
    with folder.explain_full_disk(result.fit.trainable):
        folder.finish(_save(adapted, tokenizer, result, folder))
    return result


def _save(model: Any, tokenizer: Any, result: TrainResult, folder: RunFolder) -> Path:
    """Write the result into a folder on the disk of the checkpoints, so that its files can be moved."""
    from actshift.training.trainer import quiet_libraries

    path = folder.checkpoints / "result"
    with quiet_libraries():
        if result.settings.method == "full":
            model.save_pretrained(str(path))
            tokenizer.save_pretrained(str(path))
        else:
            model.save_pretrained(str(path), save_embedding_layers=False)  # other values may contact the hub
    write_atomically(path / METRICS, json.dumps(result.to_dict(), indent=2) + "\n")
    write_atomically(path / "README.md", model_card(result))
    return path
