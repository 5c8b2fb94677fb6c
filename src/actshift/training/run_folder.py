"""The folder of a run: what may be there at the start, its checkpoints, and how the result gets into it whole."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from actshift.errors import ActshiftError
from actshift.files import write_whole
from actshift.training.settings import TrainSettings

COMPLETE = "complete.json"
"""Written into a checkpoint once all else of it is; a checkpoint without it does not count."""
METRICS = "metrics.json"
RESULTS = ("adapter_config.json", "config.json")
"""The files without which no library takes a folder for an adapter, or a model; they are moved into place last."""

CHECKPOINTS_KEPT = 3
"""The newest, the best, and at the end of a run the one before."""


@dataclass(frozen=True)
class RunFolder:
    """The output folder of one run; while it runs, all it holds is `checkpoints`."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints, which exists while a run is unfinished."""
        return self.path / "checkpoints"

    @property
    def finished(self) -> bool:
        """Whether the result is there."""
        return any((self.path / name).is_file() for name in RESULTS) and (self.path / METRICS).is_file()

    @property
    def unfinished(self) -> bool:
        """Whether a run began here and did not end."""
        return not self.finished and self._record.is_file()

    @property
    def _existing(self) -> Path:
        return next(folder for folder in (self.path, *self.path.absolute().parents) if folder.exists())

    @property
    def _untouched(self) -> bool:
        """Whether the folder holds nothing, or what a kill before the record was written leaves."""
        drafts = self.checkpoints.glob(f".{self._record.name}.*")
        return {self.checkpoints, *drafts} >= set(self.path.rglob("*"))

    @property
    def _record(self) -> Path:
        return self.checkpoints / "run.json"

    def check(self, settings: TrainSettings, resume: bool) -> None:
        """Raise ActshiftError unless a run with `settings` may begin here, or with `resume` go on; touch nothing."""
        if self.path.exists() and not self.path.is_dir():
            raise ActshiftError(f"{self.path} is a file; give a new or empty folder to write to.")
        if resume and not self.unfinished:
            raise ActshiftError(f"There is no unfinished run in {self.path} to resume; leave --resume out.")
        if resume:
            self._check_same(settings)
        elif self.unfinished:
            raise ActshiftError(f"{self.path} holds an unfinished run: continue it with --resume, or remove it.")
        elif self.path.is_dir() and not self._untouched:
            raise ActshiftError(f"{self.path} is not empty, and nothing is overwritten; give a new or empty folder.")
        if not os.access(self._existing, os.W_OK):
            raise ActshiftError(f"There is no permission to write to {self._existing}.")

    def begin(self, settings: TrainSettings, digest: str, resume: bool) -> None:
        """Check the folder, and record the settings and the fingerprint of the rows for a later resume."""
        self.check(settings, resume)
        if resume and self._read()["rows"] != digest:
            raise ActshiftError(f"The rows of {settings.data} are not those that the run in {self.path} began with.")
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        write_whole(self._record, json.dumps({"settings": asdict(settings), "rows": digest}))

    def settings(self) -> dict[str, Any]:
        """Return the settings that the unfinished run here began with; raise ActshiftError where there is none."""
        if not self.unfinished:
            raise ActshiftError(f"There is no unfinished run in {self.path} to resume; leave --resume out.")
        return self._read()["settings"]

    def latest(self, steps: int) -> Path | None:
        """Return the newest complete checkpoint before the end at `steps`, and remove all that a kill left half done.

        The one at the end is no use to the trainer, which would go on past it; the steps up to it are repeated.
        """
        whole = []
        for step, folder in self._all():
            if step < steps and (folder / COMPLETE).is_file():
                whole.append(folder)
            else:
                shutil.rmtree(folder)
        return whole[-1] if whole else None

    def remove_all_but(self, *kept: str | Path | None) -> None:
        """Remove the checkpoints other than `kept`."""
        for _, folder in self._all():
            if folder not in [Path(one) for one in kept if one]:
                shutil.rmtree(folder)

    def remove_incomplete(self) -> None:
        """Remove checkpoints that were not written to their end."""
        self.remove_all_but(*(folder for _, folder in self._all() if (folder / COMPLETE).is_file()))

    def finish(self, result: Path) -> None:
        """Move the files of `result` (a folder on the same disk) in, the one that makes it a result last; tidy up."""
        mode = (result / METRICS).stat().st_mode  # what the umask asks for; safetensors makes its files private
        for file in sorted(result.iterdir(), key=lambda file: file.name in RESULTS):
            file.chmod(mode)
            os.replace(file, self.path / file.name)
        self.tidy()

    def tidy(self) -> None:
        """Remove what a finished run no longer needs."""
        shutil.rmtree(self.checkpoints, ignore_errors=True)

    def check_space(self, trainable: int) -> None:
        """Raise ActshiftError where the disk will not hold checkpoints of `trainable` parameters, and the result."""
        needed = CHECKPOINTS_KEPT * checkpoint_bytes(trainable) + 4 * trainable
        free = shutil.disk_usage(self._existing).free
        if free < needed:
            raise ActshiftError(
                f"The disk of {self.path} has {free / 1e6:,.0f} MB free, and checkpoints need about "
                f"{needed / 1e6:,.0f} MB; free some, or write elsewhere."
            )

    @contextmanager
    def space_explained(self, trainable: int) -> Iterator[None]:
        """Turn what several libraries raise for a full disk into one error, and remove what they left half-written."""
        try:
            yield
        except Exception as error:
            if isinstance(error, ActshiftError) or shutil.disk_usage(self.path).free > checkpoint_bytes(trainable):
                raise
            self.remove_incomplete()
            raise ActshiftError(
                f"No space is left on the disk of {self.path}; free some and continue with --resume."
            ) from error

    def _all(self) -> list[tuple[int, Path]]:
        found = [(int(folder.name.rpartition("-")[2]), folder) for folder in self.checkpoints.glob("checkpoint-*")]
        return sorted(found)

    def _check_same(self, settings: TrainSettings) -> None:
        given, stored = json.loads(json.dumps(asdict(settings))), self._read()["settings"]
        for name, value in given.items():
            if value != stored.get(name):
                raise ActshiftError(
                    f"The run in {self.path} began with {name} {stored.get(name)!r}, not {value!r}; "
                    "resume it with the same settings, or start anew in another folder."
                )

    def _read(self) -> dict[str, Any]:
        return read_json(self._record)


def checkpoint_bytes(trainable: int) -> int:
    """Return the size of a checkpoint: each trainable parameter and its two Adam moments in float32, and some text."""
    return 12 * trainable + 200_000


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in `path`."""
    return json.loads(path.read_text(encoding="utf-8"))
