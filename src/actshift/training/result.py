"""What a finished run came to, as metrics.json keeps it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from actshift.model_head import CAUSAL, Head
from actshift.training.data import require_setting
from actshift.training.fit import FitResult
from actshift.training.lofit import Selection
from actshift.training.run_folder import METRICS, RunFolder, read_json
from actshift.training.settings import TrainSettings


@dataclass(frozen=True)
class TrainResult:
    """A finished run: its settings and what the training came to; for LoFiT `fit` is its second phase."""

    settings: TrainSettings
    fit: FitResult
    selection: Selection | None = None
    head: Head = CAUSAL

    @property
    def folder(self) -> Path:
        """Where the result is."""
        return Path(require_setting(self.settings, "out"))

    @property
    def folder_bytes(self) -> int:
        """The size of all that the folder holds."""
        return sum(file.stat().st_size for file in self.folder.iterdir())

    def to_dict(self) -> dict[str, Any]:
        """Return the figures, then the settings, ready for JSON.

        `from_dict` turns them back.
        """
        figures = {
            **asdict(self.fit),
            "share": self.fit.share,
            "head": asdict(self.head),
            "settings": asdict(self.settings),
        }
        return figures if self.selection is None else {**figures, "selection": self.selection.to_dict()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainResult:
        """Return the result that `to_dict` described."""
        figures = {name: values[name] for name in FitResult.__dataclass_fields__ if name in values}
        selection = Selection.from_dict(values["selection"]) if "selection" in values else None
        head = Head(values["head"]["task_type"], tuple(values["head"]["labels"])) if "head" in values else CAUSAL
        return cls(TrainSettings(**values["settings"]), FitResult(**figures), selection, head)


def read_result(folder: Path) -> TrainResult:
    """Return what metrics.json in the folder of a finished run says."""
    return TrainResult.from_dict(read_json(folder / METRICS))


def stored_settings(out: str | Path) -> dict[str, Any]:
    """Return the settings of the run in the folder `out`, unfinished or finished.

    Raises ActshiftError where there is none.
    """
    run = RunFolder(Path(out))
    return read_json(run.path / METRICS)["settings"] if run.finished else run.settings()
