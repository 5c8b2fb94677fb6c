"""LoFiT's first phase: train a scale for every attention head, and select the heads with the largest scales.

Source: arXiv 2406.01563; docs/method.md#lofit.
"""

import shutil
import warnings
from dataclasses import asdict, replace
from typing import Any

from actshift.errors import ActshiftError
from actshift.model_head import Head
from actshift.training.build import adapt
from actshift.training.configs import AdapterSpec
from actshift.training.fit import TrainingRun
from actshift.training.result import HeadSelection
from actshift.training.run_folder import RunFolder, read_json, write_json
from actshift.training.settings import TrainSettings

SEED_OFFSET = 1_000_003  # of the first phase, so that the second one does not start with the rows that selected heads


def phases(steps: int, settings: TrainSettings) -> tuple[int, int]:
    """Divide `steps` between LoFiT's two phases, for fair comparisons, or raise ActshiftError if it is below two.

    >>> phases(100, TrainSettings(adapter="lofit", lofit_steps=0.3))
    (30, 70)
    """
    if steps < 2:
        raise ActshiftError(f"LoFiT trains in two phases, and {steps} step is too few; give more rows or epochs.")
    first = min(max(1, round(steps * settings.lofit_steps)), steps - 1)
    return first, steps - first


def heads_to_keep(heads: int, settings: TrainSettings) -> int:
    """Return how many of the `heads` of all steered blocks LoFiT keeps, or raise ActshiftError if it needs more."""
    if (requested := settings.lofit_heads) is None:
        return max(1, round(heads * settings.lofit_share))
    if requested > heads:
        raise ActshiftError(f"lofit_heads is {requested}, but the steered blocks have only {heads}; lower it.")
    return requested


def select_heads(model: Any, spec: AdapterSpec, head: Head, run: TrainingRun) -> tuple[Any, HeadSelection]:
    """Start the run, train the first phase, and return the base model without an adapter and the selected heads.

    On resume it continues from the phase's newest checkpoint; the record of a finished phase is only read. If it is
    damaged, the phase runs again, which selects the same heads.

    Raises:
        ActshiftError: there are too few steps or heads, or `TrainingRun` raises.
    """
    record = run.folder.checkpoints / "heads.json"
    if run.resume and record.is_file():
        run.folder.start(run.settings, run.examples.digest, resume=True)
        try:
            return model, HeadSelection.from_dict(read_json(record))
        except (LookupError, TypeError, AttributeError, ValueError):
            warnings.warn(f"{record} is damaged; the heads are selected again.", stacklevel=2)
    from actshift.adapters.lofit import head_scores, top_heads

    first, _ = phases(run.steps, run.settings)
    scaled = adapt(model, spec, head=head)
    shifts = head_scales(scaled)
    keep = heads_to_keep(sum(len(shift.scale) for shift in shifts.values()), run.settings)
    run.start(scaled)
    folder = RunFolder(run.folder.checkpoints / "heads")
    phase = replace(
        run,
        folder=folder,
        examples=replace(run.examples, held_out=None),  # LoFiT uses the last state, not the best one
        settings=replace(run.settings, max_steps=first, seed=run.settings.seed + SEED_OFFSET, out=str(folder.path)),
        resume=folder.unfinished,
        title="LoFiT 1 of 2, selecting heads",
    )
    phase.start(scaled)
    fit = phase.train(scaled)
    scores = {layer: head_scores(shift.scale) for layer, shift in shifts.items()}
    selection = HeadSelection(top_heads(scores, keep), fit)
    write_json(record, asdict(selection))
    shutil.rmtree(folder.path)
    return scaled.unload(), selection


def head_scales(model: Any) -> dict[int, Any]:
    """Return the shift of each block of a model in the first phase, with `scale` of shape `[heads, d_head]`."""
    from actshift.tuner import steering_layers

    layers = steering_layers(model).values()
    return {layer.layer_index: shift for layer in layers for shift in layer.lora_steer.values()}
