"""The record of everything that decides the result of a run: settings, files, rewards, and package versions."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from actshift.errors import ActshiftError
from actshift.fingerprint import changed, fingerprint_model, hash_source, versions
from actshift.training.settings import TrainSettings

FILES = ("task", "interventions", "start")  # settings that may name a file, or the folder of an adapter
PATHS = ("model", "data", "eval_data", "data_dir", *FILES)
PARTS = ("model", "rewards", "files", "versions")  # of the fingerprints
BY_CONTENT = ("out", "data", "eval_data", "data_dir")  # not compared as paths: the rows are compared


def fingerprints(settings: TrainSettings) -> dict[str, Any]:
    """Return fingerprints of the base model, the custom rewards and the files that `settings` name, and the versions.

    Raises:
        ActshiftError: a file cannot be read, or a reward cannot be imported.
    """
    from actshift.training.rewards import hash_reward

    return {
        "model": fingerprint_model(settings.model, settings.revision) if settings.model else {},
        "rewards": {name: hash_reward(name) for name in settings.reward or () if ":" in name},
        "files": {name: digest for name in FILES if (digest := hash_source(getattr(settings, name)))},
        "versions": versions(),
    }


def check_fingerprints(before: Mapping[str, Any] | None, now: Mapping[str, Any], made: str) -> None:
    """Compare fingerprints; `made` names what they belong to, with a verb, such as "the run in out/ started".

    Warns if package versions differ, or if `before` is None because an older version of actshift recorded none.

    Raises:
        ActshiftError: the base model, a reward or a file has changed.
    """
    if before is None:
        warnings.warn(
            f"An older actshift recorded no fingerprints when {made}. It cannot be checked whether the base model, the "
            "rewards and the package versions are the same.",
            stacklevel=2,
        )
        return
    names = {
        "base model": ", ".join(changed(before["model"], now["model"])),
        "reward": ", ".join(changed(before["rewards"], now["rewards"])),
        "file in the setting": ", ".join(changed(before["files"], now["files"])),
    }
    for what, parts in names.items():
        if parts:
            fix = "restore it, or start in another folder"
            raise ActshiftError(f"The {what} has changed since {made} ({parts}); {fix}.")
    if packages := changed(before["versions"], now["versions"]):
        old, new = before["versions"], now["versions"]
        differences = (f"{name} {old.get(name, 'missing')} (now {new.get(name, 'missing')})" for name in packages)
        warnings.warn(f"Results can differ, because {made} with {', '.join(differences)}.", stacklevel=2)


def differing(stored: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield the names of settings that differ, with the stored and the current value; both as JSON values.

    Paths are compared as places on the disk, and not at all if both have `fingerprints`, which compare the contents.
    """
    before, after = stored.get("fingerprints"), now["fingerprints"]
    known = {"fingerprints", *BY_CONTENT, *(after["files"].keys() & before["files"].keys() if before else ())}
    if before and before["model"] and after["model"]:
        known.add("model")
    stored = {**as_json(TrainSettings()), **stored}  # an older version had fewer settings
    for name, new in now.items():
        old = stored.get(name)
        if name not in known and old != new and not (name in PATHS and place(old) == place(new)):
            yield name, old, new


def as_json(settings: TrainSettings) -> dict[str, Any]:
    """Return settings as JSON values."""
    return json.loads(json.dumps(asdict(settings)))


def place(value: Any, folder: str = ".") -> Any:
    """Return the real path of a setting that names an existing file or folder, relative to `folder`, or the setting.

    >>> place("no/such/file"), place(".") == os.getcwd()
    ('no/such/file', True)
    """
    if isinstance(value, list | tuple):
        return [place(each, folder) for each in value]
    if isinstance(value, str) and (path := Path(folder, os.path.expanduser(value))).exists():
        return os.path.realpath(path)
    return value
