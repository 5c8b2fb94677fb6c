"""The output folder of a run: checks before the start, checkpoints, and the move of the result into place."""

import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from actshift.errors import ActshiftError
from actshift.files import (
    LOADABLE,
    PRIVATE,
    existing_folder,
    locked_folder,
    move_into,
    sync_file,
    sync_folder,
    write_atomically,
)
from actshift.fingerprint import sha256
from actshift.training.record import PARTS, PATHS, as_json, check_fingerprints, differing, fingerprints, place
from actshift.training.settings import TrainSettings

COMPLETE = "complete.json"  # written last into a checkpoint; checkpoints without it are ignored
METRICS = "metrics.json"
DIGEST = "sha256"  # the key of a JSON object's hash
CHECKPOINTS_KEPT = 3  # the newest, the one before it, and the best


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

    def locked(self) -> AbstractContextManager[None]:
        """Return a context manager that keeps other processes out, or raises ActshiftError if one trains here."""
        busy = f"Another process trains in {self.path}; wait for it, or write to another folder."
        return locked_folder(self.checkpoints, busy)

    def check(self, settings: TrainSettings, resume: bool) -> dict[str, Any] | None:
        """Raise ActshiftError unless the folder is writable, and empty or (to resume) has a run with `settings`.

        A resumed run also needs the same base model, rewards and files, and their fingerprints are returned. Warns if
        package versions have changed.
        """
        prints = None
        if self.path.exists() and not self.path.is_dir():
            raise ActshiftError(f"{self.path} is a file; give a new or empty folder to write to.")
        if resume:
            prints = self._check_same(settings)
        elif self.unfinished:
            with self.locked():  # otherwise the run is still going on, and the error says so
                pass
            raise ActshiftError(f"{self.path} contains an unfinished run; continue it with --resume, or remove it.")
        # A run that was killed while it started leaves its folder of checkpoints, a lock and a draft of its record.
        elif any(
            file != self.checkpoints and PRIVATE not in str(file.relative_to(self.path))
            for file in self.path.rglob("*")
        ):
            raise ActshiftError(f"{self.path} is not empty; give a new or empty folder, since nothing is overwritten.")
        if not os.access(existing := existing_folder(self.path), os.W_OK):
            raise ActshiftError(f"There is no permission to write to {existing}.")
        return prints

    def start(self, settings: TrainSettings, digest: str, resume: bool) -> None:
        """Record the settings and the rows' digest, or raise ActshiftError as `check` does or if the rows changed."""
        prints = self.check(settings, resume) or fingerprints(settings)
        if resume and self._read_record()["rows"] != digest:
            data = settings.data or settings.task
            names = data if isinstance(data, str) else " and ".join(data or ())
            raise ActshiftError(f"The rows of {names} have changed since the run in {self.path} started.")
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        self._write_record({"settings": asdict(settings), "rows": digest, "fingerprints": prints})

    def settings(self) -> dict[str, Any]:
        """Return the settings of the unfinished run in this folder, or raise ActshiftError if there is none.

        Relative paths of a run that was started in another working directory become absolute.
        """
        if not self.unfinished:
            raise ActshiftError(f"There is no unfinished run in {self.path} to resume; leave --resume out.")
        record = self._read_record()
        settings, folder = record["settings"], str(record.get("cwd", "."))
        if folder not in (".", os.getcwd()):
            settings |= {name: place(settings.get(name), folder) for name in PATHS}
        return settings

    @property
    def started_here(self) -> bool:
        """False if the record of the unfinished run was copied to this folder, perhaps from a stranger's machine."""
        return self._read_record().get("inode") == self.checkpoints.stat().st_ino

    def forget_rewards(self) -> None:
        """Allow other source code of the rewards on resume, after one of them failed."""
        record = self._read_record()
        if record.get("fingerprints"):
            record["fingerprints"]["rewards"] = {}
            self._write_record(record)

    def _check_same(self, settings: TrainSettings) -> dict[str, Any]:
        stored, before, now = self.settings(), self._read_record().get("fingerprints"), fingerprints(settings)
        for name, old, new in differing({**stored, "fingerprints": before}, {**as_json(settings), "fingerprints": now}):
            problem = f"The run in {self.path} started with {name} {old!r}, not {new!r}"
            raise ActshiftError(f"{problem}; resume it with the same settings, or start in another folder.")
        check_fingerprints(before, now, f"the run in {self.path} started")
        return now

    def _read_record(self) -> dict[str, Any]:
        record = read_json(self._record)
        parts = [record.get("settings")]
        if "fingerprints" in record:  # older versions wrote none
            prints = record["fingerprints"]
            parts += [prints.get(part) for part in PARTS] if isinstance(prints, dict) else [prints]
        if not all(isinstance(part, dict) for part in parts) or "rows" not in record:
            raise ActshiftError(f"{self._record} is damaged; remove {self.path}, and start again.")
        return record

    def _write_record(self, record: dict[str, Any]) -> None:
        here = {"cwd": os.getcwd(), "inode": self.checkpoints.stat().st_ino}
        write_json(self._record, {**record, **here})

    def finish(self, result: Path) -> None:
        """Move the files of `result`, a folder on the same disk, here, and remove the checkpoints."""
        move_into(self.path, result)
        shutil.rmtree(self.checkpoints, ignore_errors=True)

    def check_space(self, trainable: int) -> None:
        """Raise ActshiftError unless the disk has room for checkpoints and result of `trainable` parameters."""
        needed = CHECKPOINTS_KEPT * checkpoint_bytes(trainable) + 4 * trainable
        if (free := shutil.disk_usage(existing_folder(self.path)).free) < needed:
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

    def complete(self, checkpoint: Path, seconds: float, best: int | None) -> None:
        """Write all files of a checkpoint to the disk, and mark it as complete with their sizes and hashes.

        Args:
            seconds: the duration of the run so far.
            best: the step of the best checkpoint so far, without which this one cannot be resumed.
        """
        files: dict[str, tuple[int, str]] = {}
        for name, file in _files(checkpoint).items():
            sync_file(file)
            files[name] = (file.stat().st_size, sha256(file))
        sync_folder(checkpoint)
        write_json(checkpoint / COMPLETE, {"seconds": seconds, "best": best, "files": files})
        sync_folder(self.checkpoints)

    def latest(self, steps: int) -> Path | None:
        """Return the newest whole checkpoint before step `steps`, and remove incomplete, damaged and later ones.

        From the checkpoint of the last step the trainer would continue beyond it, so that one cannot be used. Warns if
        a checkpoint is damaged: the run then continues from an older one, or starts from the beginning.
        """
        usable, skipped = [path for step, path in self._all_checkpoints() if step < steps], list[str]()
        while usable and (problem := self._damage(usable[-1])):
            skipped.append(f"{usable.pop().name} is damaged ({problem})")
        if skipped:
            then = f"continues from {usable[-1].name}" if usable else "starts again, since no older one is whole"
            warnings.warn(f"In {self.checkpoints}, {', and '.join(skipped)}. The run {then}.", stacklevel=2)
        self.remove_all_but(*usable)
        return usable[-1] if usable else None

    def remove_all_but(self, *kept: str | Path | None) -> None:
        """Remove all checkpoints except `kept`."""
        for _, folder in self._all_checkpoints():
            if folder in map(Path, filter(None, kept)):
                continue
            if folder.is_symlink() or not folder.is_dir():
                folder.unlink()
            else:
                if (folder / COMPLETE).is_file():
                    (folder / COMPLETE).unlink()  # first, so that no half of it counts as complete
                shutil.rmtree(folder)

    def _damage(self, checkpoint: Path, with_best: bool = True) -> str | None:
        """Return what is wrong with a checkpoint, or None."""
        if not (checkpoint / COMPLETE).is_file():
            return "it was not written to the end"
        try:
            record, present = read_json(checkpoint / COMPLETE), _files(checkpoint)
            float(record["seconds"])
            if "files" not in record:
                warnings.warn(f"{checkpoint} is of an older actshift, and cannot be checked for damage.", stacklevel=3)
                return None
            files, best = record["files"], record["best"]
            for name in sorted(files.keys() ^ present.keys()):
                return f"{name} {'is missing' if name in files else 'does not belong to it'}"
            for name, (size, digest) in files.items():
                if (found := present[name].stat().st_size) != size:
                    return f"{name} has {found:,} of {size:,} bytes"
                if sha256(present[name]) != digest:
                    return f"the content of {name} has changed"
            if best is None or not with_best or checkpoint.name == f"checkpoint-{best}":
                return None
            problem = self._damage(self.checkpoints / f"checkpoint-{best}", with_best=False)
            return problem and f"it needs checkpoint-{best}, in which {problem}"
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return "a file cannot be read"

    def _all_checkpoints(self) -> list[tuple[int, Path]]:
        names = ((re.fullmatch(r"checkpoint-([0-9]{1,9})", path.name), path) for path in self.checkpoints.glob("c*"))
        return sorted((int(match[1]), path) for match, path in names if match)


def _files(folder: Path) -> dict[str, Path]:
    """Return the files of a checkpoint by name; hidden ones, which some systems create, are never read."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path for name, path in files.items() if name != COMPLETE and not re.match(r"(.*/)?\.", name)}


def checkpoint_bytes(trainable: int) -> int:
    """Return the size of a checkpoint: the parameters and two Adam moments in float32, plus small text files."""
    return 12 * trainable + 200_000


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        ActshiftError: the file contains anything else, or has changed since `write_json` wrote it.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise ActshiftError(f"{path} is damaged: it does not contain a JSON object. Restore it, or remove its folder.")
    if values.pop(DIGEST, digest := _digest(values)) != digest:
        raise ActshiftError(f"{path} is damaged: its content has changed. Restore it, or remove its folder.")
    return values


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a JSON object atomically, with a hash of it."""
    values = json.loads(json.dumps(values))
    write_atomically(path, json.dumps({**values, DIGEST: _digest(values)}))


def _digest(values: dict[str, Any]) -> str:
    kept = {name: value for name, value in values.items() if name != DIGEST}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
