"""LoFiT's first phase: learn a scale for every attention head, and keep the heads whose scales grew the most."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, replace
from typing import Any

from actshift.errors import ActshiftError
from actshift.files import write_whole
from actshift.training.build import adapt
from actshift.training.fit import FitResult, Job
from actshift.training.run_folder import RunFolder, read_json
from actshift.training.settings import TrainSettings

Heads = dict[int, tuple[int, ...]]
"""The chosen heads of each block that has any."""
OTHER_ORDER = 1_000_003
"""Added to the seed of the first phase, so that the second does not begin with the very rows that chose the heads."""


@dataclass(frozen=True)
class Selection:
    """What the first phase came to: the chosen heads by block, and the figures of its training."""

    heads: Heads
    fit: FitResult

    def to_dict(self) -> dict[str, Any]:
        """Return both, ready for JSON, as `from_dict` reads them."""
        return {"heads": {str(layer): list(heads) for layer, heads in self.heads.items()}, "fit": asdict(self.fit)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Selection:
        """Return the selection that `to_dict` described."""
        heads = {int(layer): tuple(chosen) for layer, chosen in values["heads"].items()}
        return cls(heads, FitResult(**values["fit"]))

    def __str__(self) -> str:
        blocks = "; ".join(f"block {layer}: {', '.join(map(str, heads))}" for layer, heads in self.heads.items())
        return f"{sum(map(len, self.heads.values()))} heads ({blocks})"


def phases(steps: int, settings: TrainSettings) -> tuple[int, int]:
    """Return how many of a run's `steps` go to LoFiT's two phases, which each have a whole schedule.

    Together they are as many as any other method takes, so that a comparison is on equal terms.

    Raises ActshiftError where there is less than one step for each.

    >>> phases(100, TrainSettings(adapter="lofit", lofit_steps=0.3))
    (30, 70)
    """
    if steps < 2:
        raise ActshiftError(
            f"LoFiT trains in two phases, and {steps} step is too few; give more rows, epochs or steps."
        )
    first = min(max(1, round(steps * settings.lofit_steps)), steps - 1)
    return first, steps - first


def heads_to_keep(heads: int, settings: TrainSettings) -> int:
    """Return how many of the `heads` of all steered blocks LoFiT keeps.

    Raises ActshiftError where there are fewer than the settings ask for.
    """
    if settings.lofit_heads is None:
        return max(1, round(heads * settings.lofit_share))
    if settings.lofit_heads > heads:
        raise ActshiftError(f"lofit_heads is {settings.lofit_heads}, and the steered blocks have {heads} heads.")
    return settings.lofit_heads


def select_heads(model: Any, job: Job) -> tuple[Any, Selection]:
    """Return the base model, as it was given, and the heads that the first phase chose; the whole job has then begun.

    A job that resumes goes on from the phase's newest checkpoint; a phase that ended is only read.
    """
    record = job.folder.checkpoints / "heads.json"
    if job.resume and record.is_file():
        job.folder.begin(job.settings, job.examples.digest, resume=True)
        return model, Selection.from_dict(read_json(record))
    first, _ = phases(job.steps, job.settings)
    scaled = adapt(model, job.settings, head=job.head)
    heads_to_keep(sum(len(shift.scale) for shift in scales(scaled).values()), job.settings)
    job.begin(scaled)
    folder = RunFolder(job.folder.checkpoints / "heads")
    phase = replace(
        job,
        folder=folder,
        examples=replace(job.examples, held_out=None),  # the last state counts, as in LoFiT
        settings=replace(job.settings, max_steps=first, seed=job.settings.seed + OTHER_ORDER, out=str(folder.path)),
        resume=folder.unfinished,
        title="LoFiT 1 of 2, choosing heads",
    )
    phase.begin(scaled)
    fitted = phase.run(scaled)
    selection = Selection(_best(scaled, job.settings), fitted)
    write_whole(record, json.dumps(selection.to_dict()))
    shutil.rmtree(folder.path)
    return scaled.unload(), selection


def scales(model: Any) -> dict[int, Any]:
    """Return the shift at each block of a model in the first phase."""
    from actshift.tuner import steering_layers

    return {
        layer.layer_index: shift for layer in steering_layers(model).values() for shift in layer.lora_steer.values()
    }


def _best(model: Any, settings: TrainSettings) -> Heads:
    from actshift.adapters.lofit import head_scores, top_heads

    scores = {layer: head_scores(shift.scale) for layer, shift in scales(model).items()}
    return top_heads(scores, heads_to_keep(sum(map(len, scores.values())), settings))
