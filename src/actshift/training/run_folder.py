"""The output folder of a run: checks before the start, checkpoints, and the move of the result into place."""

import json
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from actshift.errors import ActshiftError
from actshift.files import LOADABLE, PRIVATE, move_into, write_atomically
from actshift.training.settings import TrainSettings

COMPLETE = "complete.json"  # written last into a checkpoint; checkpoints without it are ignored
METRICS = "metrics.json"
CHECKPOINTS_KEPT = 3  # the newest, the best, and at the end of a run the one before the newest


@dataclass(frozen=True)
class RunFolder:
    """The output folder of one run. During the run it contains only the folder `checkpoints`."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints, which exists while a run is unfinished."""
        return self.path / "checkpoints"

    @property
    def finished(self) -> bool:
        """True if the folder contains a result."""
        return any((self.path / name).is_file() for name in LOADABLE) and (self.path / METRICS).is_file()

    @property
    def unfinished(self) -> bool:
        """True if a run started here and did not finish."""
        return not self.finished and self._record.is_file()

    @property
    def _record(self) -> Path:
        return self.checkpoints / "run.json"

    @property
    def _existing(self) -> Path:
        return next(folder for folder in (self.path, *self.path.absolute().parents) if folder.exists())

    def check(self, settings: TrainSettings, resume: bool) -> None:
        """Raise ActshiftError unless the folder is writable, and empty or (to resume) has a run with `settings`."""
        if self.path.exists() and not self.path.is_dir():
            raise ActshiftError(f"{self.path} is a file; give a new or empty folder to write to.")
        if resume:
            stored = self.settings()
            for name, value in json.loads(json.dumps(asdict(settings))).items():
                if value != stored.get(name):
                    problem = f"The run in {self.path} started with {name} {stored.get(name)!r}, not {value!r}"
                    raise ActshiftError(f"{problem}; resume it with the same settings, or start in another folder.")
        elif self.unfinished:
            raise ActshiftError(f"{self.path} contains an unfinished run; continue it with --resume, or remove it.")
        # A run that was killed while it started leaves its folder of checkpoints and a draft of its record.
        elif any(
            PRIVATE not in str(file.relative_to(self.path)) for file in {*self.path.rglob("*")} - {self.checkpoints}
        ):
            raise ActshiftError(f"{self.path} is not empty; give a new or empty folder, since nothing is overwritten.")
        if not os.access(self._existing, os.W_OK):
            raise ActshiftError(f"There is no permission to write to {self._existing}.")

    def start(self, settings: TrainSettings, digest: str, resume: bool) -> None:
        """Record the settings and the rows' digest, or raise ActshiftError as `check` does or if the rows changed."""
        self.check(settings, resume)
        if resume and read_json(self._record)["rows"] != digest:
            raise ActshiftError(f"The rows of {settings.data} have changed since the run in {self.path} started.")
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        write_atomically(self._record, json.dumps({"settings": asdict(settings), "rows": digest}))

    def settings(self) -> dict[str, Any]:
        """Return the settings of the unfinished run in this folder, or raise ActshiftError if there is none."""
        if not self.unfinished:
            raise ActshiftError(f"There is no unfinished run in {self.path} to resume; leave --resume out.")
        return read_json(self._record)["settings"]

    def latest(self, steps: int) -> Path | None:
        """Return the newest complete checkpoint before step `steps`, and remove incomplete and later ones.

        From the checkpoint of the last step the trainer would continue beyond it, so that one cannot be used.
        """
        every = self._all_checkpoints()
        usable = [folder for step, folder in every if step < steps and (folder / COMPLETE).is_file()]
        self.remove_all_but(*usable)
        return usable[-1] if usable else None

    def remove_all_but(self, *kept: str | Path | None) -> None:
        """Remove all checkpoints except `kept`."""
        for _, folder in self._all_checkpoints():
            if folder not in map(Path, filter(None, kept)):
                shutil.rmtree(folder)

    def finish(self, result: Path) -> None:
        """Move the files of `result`, a folder on the same disk, here, and remove the checkpoints."""
        move_into(self.path, result)
        shutil.rmtree(self.checkpoints, ignore_errors=True)

    def check_space(self, trainable: int) -> None:
        """Raise ActshiftError unless the disk has room for checkpoints and result of `trainable` parameters."""
        needed = CHECKPOINTS_KEPT * checkpoint_bytes(trainable) + 4 * trainable
        if (free := shutil.disk_usage(self._existing).free) < needed:
            problem = f"{free / 1e6:,.0f} MB free, and checkpoints need about {needed / 1e6:,.0f} MB"
            raise ActshiftError(f"The disk of {self.path} has {problem}; free some space, or write to another disk.")

    @contextmanager
    def explain_full_disk(self, trainable: int) -> Generator[None, None, None]:
        """Convert errors of libraries without space for a checkpoint to ActshiftError; remove incomplete ones."""
        try:
            yield
        except Exception as error:
            if isinstance(error, ActshiftError) or shutil.disk_usage(self.path).free > checkpoint_bytes(trainable):
                raise
            self.remove_all_but(*(folder for _, folder in self._all_checkpoints() if (folder / COMPLETE).is_file()))
            fix = "free some space and continue with --resume"
            raise ActshiftError(f"No space is left on the disk of {self.path}; {fix}.") from error

    def _all_checkpoints(self) -> list[tuple[int, Path]]:
        return sorted((int(path.name.rpartition("-")[2]), path) for path in self.checkpoints.glob("checkpoint-*"))


def checkpoint_bytes(trainable: int) -> int:
    """Return the size of a checkpoint: the parameters and two Adam moments in float32, plus small text files."""
    return 12 * trainable + 200_000


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file."""
    return json.loads(path.read_text(encoding="utf-8"))
