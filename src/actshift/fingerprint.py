"""Fingerprints of the files that decide a result, and the versions of the packages that produced it."""

import hashlib
import json
import os
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from actshift.errors import ActshiftError
from actshift.gguf import find_gguf

PACKAGES = ("actshift", "torch", "transformers", "peft", "trl", "datasets", "accelerate", "numpy")
PARTS = {
    "config": ("config.json", "generation_config.json"),
    "weights": ("*.safetensors", "*.safetensors.index.json"),
    "tokenizer": ("tokenizer*", "vocab*", "merges.txt", "*.model", "special_tokens_map.json", "added_tokens.json"),
    "chat template": ("chat_template*", "additional_chat_templates/*"),
    "code": ("*.py",),
}
"""The files of a model, by the part that a message names."""
IRRELEVANT = ("transformers_version", "_name_or_path", "dtype", "torch_dtype")  # keys of a config that change on a save
WHOLE = 64 * 2**20  # bytes; larger files of weights are sampled
SAMPLE = 1024  # bytes of each sample


def fingerprint_model(source: str | Path, revision: str | None = None) -> dict[str, str]:
    """Return a fingerprint of each part of a model in a folder or GGUF file, or the commit of a cached hub model.

    Files of weights above 64 MiB are sampled: the header, and three kilobytes of each tensor. That takes less than a
    second for a model of 7B parameters, and finds any change that training makes. It can miss a few edited numbers.

    Raises:
        ActshiftError: a file cannot be read, or it is not clear which GGUF file is the model.

    >>> from actshift.demo import BASE_DIR
    >>> sorted(fingerprint_model(BASE_DIR))
    ['config', 'tokenizer', 'weights']
    """
    folder = Path(source).expanduser()
    if (file := find_gguf(folder)) is not None:
        return {"weights": hash_files([file])}
    if not folder.is_dir():
        from huggingface_hub import try_to_load_from_cache

        with suppress(ValueError):  # no id of the hub
            if isinstance(cached := try_to_load_from_cache(str(source), "config.json", revision=revision), str):
                return {"commit": Path(cached).parent.name}
        return {}
    digests, config = dict[str, str](), folder / "config.json"
    for part, patterns in PARTS.items():
        if part == "code" and not (config.is_file() and b'"auto_map"' in config.read_bytes()):
            continue  # the model does not use the scripts in its folder
        if files := sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()}):
            digests[part] = hash_files(files)
    return digests


def hash_files(files: list[Path]) -> str:
    """Return a hash of the names and contents of files; large safetensors are sampled, and configs are parsed.

    Raises:
        ActshiftError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for file in files:
        try:
            digest.update(f"{file.name}\0".encode())
            if file.suffix == ".safetensors" and file.stat().st_size > WHOLE:
                _sample(file, digest)
            elif file.name == "config.json":
                digest.update(_relevant(file.read_bytes()))
            else:
                digest.update(sha256(file).encode())
        except OSError as error:
            raise ActshiftError(f"{file} cannot be read: {error.strerror}.") from error
    return digest.hexdigest()[:16]


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits; raises OSError if it cannot be read."""
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _sample(file: Path, digest: Any) -> None:
    """Add the header of a safetensors file, and the start, the middle and the end of each of its tensors."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        header = opened.read(min(length, WHOLE))
        digest.update(header)
        try:
            entries = (entry for name, entry in json.loads(header).items() if name != "__metadata__")
            places = sorted((int(entry["data_offsets"][0]), int(entry["data_offsets"][1])) for entry in entries)
        except (ValueError, AttributeError, LookupError, TypeError):
            return  # loading the model explains what is wrong
        for start, end in places:
            for offset in (start, (start + end - SAMPLE) // 2, end - SAMPLE):
                opened.seek(8 + length + max(start, offset))
                digest.update(opened.read(min(SAMPLE, end - start)))


def _relevant(config: bytes) -> bytes:
    """Return a config without the keys that depend on who saved it."""
    try:
        values = json.loads(config)
        kept = {name: value for name, value in values.items() if name not in IRRELEVANT}
    except (ValueError, AttributeError):
        return config  # loading the model explains what is wrong
    return json.dumps(kept, sort_keys=True).encode()


def hash_source(source: str | None) -> str | None:
    """Return a hash of a file, or of the adapter in a folder; None for names that are neither.

    >>> hash_source("gsm8k") is None
    True
    """
    if not source or not os.path.exists(path := Path(source).expanduser()):
        return None
    return hash_files(sorted([*path.glob("adapter_config.json"), *path.glob("*.safetensors")]) or [path])


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide a result; missing packages are left out.

    >>> sorted(versions())[:2]
    ['accelerate', 'actshift']
    """
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def changed(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return the names whose values differ in two fingerprints, or none if one of these is empty, hence unknown.

    >>> changed({"torch": "2.12", "trl": "1"}, {"torch": "2.13", "trl": "1"})
    ['torch']
    """
    return [name for name in sorted({*before, *now}) if before and now and before.get(name) != now.get(name)]
