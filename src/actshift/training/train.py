"""The whole verb: read, attach, train, and leave a folder that any PEFT program can load."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from actshift.files import write_whole
from actshift.training.card import model_card
from actshift.training.fit import FitResult, fit
from actshift.training.inputs import load_splits, named
from actshift.training.run_folder import METRICS, RunFolder, read_json
from actshift.training.settings import TrainSettings
from actshift.training.steering import steered_model, steering_config


@dataclass(frozen=True)
class TrainResult:
    """A finished run: its settings and what the training came to, as metrics.json keeps them."""

    settings: TrainSettings
    fit: FitResult

    @property
    def folder(self) -> Path:
        """Where the adapter is."""
        return Path(named(self.settings, "out"))

    @property
    def folder_bytes(self) -> int:
        """The size of all that the folder holds."""
        return sum(file.stat().st_size for file in self.folder.iterdir())

    def to_dict(self) -> dict[str, Any]:
        """Return the figures, then the settings, ready for JSON.

        `from_dict` turns them back.
        """
        return {**asdict(self.fit), "share": self.fit.share, "settings": asdict(self.settings)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainResult:
        """Return the result that `to_dict` described."""
        figures = {name: values[name] for name in FitResult.__dataclass_fields__}
        return cls(TrainSettings.from_mapping(values["settings"]), FitResult(**figures))


def train(settings: TrainSettings, resume: bool = False) -> TrainResult:
    """Train an adapter as `settings` say, and save it with a model card and metrics.json in the folder `out`.

    `resume` goes on with a run that was stopped at any moment; one that is finished already is only reported.

    Raises:
        ActshiftError: a setting that is missing or wrong, a model or rows that cannot be read, an adapter that does
            not fit the model, an `out` that holds something else; all before anything is written. Later: a
            loss that is no number, a full disk.

    Example:
        >>> train(TrainSettings(model="gpt2", data="rows.jsonl", out="run"))  # doctest: +SKIP
    """
    run = RunFolder(Path(named(settings, "out")))
    if resume and run.finished:
        run.tidy()
        warnings.warn(f"The run in {run.path} is finished already; nothing is left to resume.", stacklevel=2)
        return read_result(run.path)
    run.check(settings, resume)
    steering_config(settings)  # names are checked before hours of loading
    rows, eval_rows = load_splits(settings)
    model, tokenizer = steered_model(settings)
    fitted = fit(model, tokenizer, rows, settings, eval_rows, run.path, resume)
    result = TrainResult(settings, fitted)
    with run.space_explained(fitted.trainable):
        run.finish(_save(model, result, run))
    return result


def read_result(folder: Path) -> TrainResult:
    """Return what metrics.json in the folder of a finished run says."""
    return TrainResult.from_dict(read_json(folder / METRICS))


def _save(model: Any, result: TrainResult, run: RunFolder) -> Path:
    folder = run.checkpoints / "result"
    model.save_pretrained(str(folder), save_embedding_layers=False)  # True or "auto" may ask the hub
    write_whole(folder / METRICS, json.dumps(result.to_dict(), indent=2) + "\n")
    write_whole(folder / "README.md", model_card(result.settings, result.fit))
    return folder


def stored_settings(out: str | Path) -> dict[str, Any]:
    """Return the settings of the run in the folder `out`, unfinished or finished.

    Raises ActshiftError where there is none.
    """
    run = RunFolder(Path(out))
    return read_json(run.path / METRICS)["settings"] if run.finished else run.settings()
