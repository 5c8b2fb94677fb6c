"""GGUF files, the model files of llama.cpp. transformers dequantises them on loading."""

import re
import tempfile
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from actshift.errors import ActshiftError, first_line, require
from actshift.files import LOADABLE

SUFFIX = ".gguf"
MAGIC = b"GGUF"

_PART = re.compile(r"-\d{5}-of-(\d{5})$")


def find_gguf(source: str | Path | None) -> Path | None:
    """Return the GGUF file that `source` names: the file itself, or the only one in a folder without a config.

    None means that `source` is something else.

    Raises:
        ActshiftError: the folder has several GGUF files, or the file is not a GGUF file or only a part of one.
    """
    path = Path(source or "").expanduser()
    if path.is_file() and path.suffix.lower() == SUFFIX:
        files = [path]
    elif source and path.is_dir() and not any((path / name).is_file() for name in LOADABLE):
        files = sorted(file for file in path.iterdir() if file.suffix.lower() == SUFFIX and file.is_file())
    else:
        return None
    for file in files:
        if (part := _PART.search(file.stem)) and int(part[1]) > 1:
            fix = "Join the parts with llama-gguf-split --merge of llama.cpp, and give the result"
            raise ActshiftError(f"{file} is one of {int(part[1])} parts of a model. {fix}.")
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise ActshiftError(f"The folder {source} has several GGUF files: {names}. Give the path of one of them.")
    for file in files:
        with file.open("rb") as opened:
            if opened.read(len(MAGIC)) != MAGIC:
                raise ActshiftError(f"{file} is not a GGUF file, although it has that name. Download it again.")
    return files[0] if files else None


@contextmanager
def gguf_arguments(file: Path) -> Generator[dict[str, Any]]:
    """Yield the arguments with which `from_pretrained` of transformers reads a GGUF file, and no file next to it.

    Inside the `with` block, the progress bar is hidden, and repeated calls parse the metadata of a file only once.

    Raises:
        ActshiftError: the package `gguf` is missing, or the file is damaged or of an architecture that transformers
            cannot convert.
    """
    package: Any = require("gguf", "gguf")
    from transformers import modeling_gguf_pytorch_utils as converter

    load = converter.load_gguf_checkpoint

    def load_once(path: str, return_tensors: bool = False, **kwargs: Any) -> dict[str, Any]:
        if return_tensors:
            return load(path, return_tensors=True, **kwargs)
        stat = Path(path).stat()
        metadata = _metadata(load, path, stat.st_size, stat.st_mtime_ns)
        return {**metadata, "config": deepcopy(metadata["config"])}

    replacements: tuple[tuple[Any, str, Any], ...] = (
        (converter, "load_gguf_checkpoint", load_once),
        (converter, "tqdm", lambda items, **_: items),
        (package, "GGUFReader", _fast_reader(package.GGUFReader)),
        (package, "get_tensor_name_map", cache(package.get_tensor_name_map)),  # else built once per submodule
    )
    with ExitStack() as undo:
        for module, name, replacement in replacements:
            undo.callback(setattr, module, name, getattr(module, name))
            setattr(module, name, replacement)
        empty = undo.enter_context(tempfile.TemporaryDirectory())
        try:
            yield {"pretrained_model_name_or_path": empty, "gguf_file": str(file.absolute())}
        except ActshiftError:
            raise
        except Exception as error:  # the readers check little, so a damaged file causes errors of any class
            raise ActshiftError(_explain(file, error)) from error


def _fast_reader(reader: type) -> type:
    """Return a subclass that slices a plain array, which takes a third of the time of slicing a memory map."""
    import numpy as np

    def keep(self: Any, mapped: Any) -> None:
        self.array = np.asarray(mapped)

    return type(reader.__name__, (reader,), {"data": property(lambda self: self.array, keep)})


@lru_cache(maxsize=1)
def _metadata(load: Callable[[str], dict[str, Any]], path: str, size: int, changed: int) -> dict[str, Any]:
    """Return the config and the tokenizer of a file, which takes seconds. `size` and `changed` identify its content."""
    return load(path)


def dequantised() -> dict[str, Any]:
    """Return the arguments with which `from_pretrained` dequantises all weights, on every device."""
    import transformers

    config: Any = getattr(transformers, "GgufConfig", None)  # older versions always dequantise
    return {} if config is None else {"quantization_config": config(dequantize=True)}


def _explain(file: Path, error: Exception) -> str:
    message = first_line(error)
    if ("architecture" in message and "not supported" in message) or "Unknown gguf model_type" in message:
        return f"transformers cannot convert the architecture of {file}. Give the model as safetensors."
    return f"The GGUF file {file} cannot be read ({message}). If it is incomplete, download it again."
