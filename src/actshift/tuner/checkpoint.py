"""Files of a saved adapter: find them, read the config, and check tensor names and shapes without loading values."""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from sys import intern
from typing import Any, cast

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from safetensors import SafetensorError, safe_open
from torch import Tensor

from actshift.errors import ActshiftError, first_line

PEFT_PREFIX = "base_model.model."
Shape = tuple[int, ...]
TORCH_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
ALLOWED_DTYPES = "an adapter has only float64, float32, float16 and bfloat16"
DTYPES = ("F64", "F32", "F16", "BF16")  # in the words of safetensors
COUNTER = ("I64", ())  # the dtype and shape of JoLA's step, and of similar buffers
MAX_CONFIG = 8 * 2**20  # bytes of adapter_config.json
MAX_HEADER = 32 * 2**20  # bytes of the names, dtypes and shapes in a tensor file; PEFT's largest have about 10


@dataclass(frozen=True)
class Checkpoint:
    """The path of an adapter's tensors, and their shapes by the names they have in the bare model.

    `unprefixed` are the names of tensors without PEFT's prefix, which belong to no adapter.
    """

    path: str
    shapes: Mapping[str, Shape]
    unprefixed: tuple[str, ...] = ()

    def check_fits(self, required: Mapping[str, Shape], foreign: Collection[str]) -> None:
        """Check that the file has the `required` tensors, and raise an error if there are `foreign` ones.

        Raises:
            ActshiftError: for a missing or foreign tensor, or one of another shape.
        """
        missing = [name for name in required if name not in self.shapes]
        for names, problem in ((missing, "lacks"), (sorted([*foreign, *self.unprefixed]), "holds the foreign")):
            if names:
                unfit = f"{self.path} does not fit this model and config: it {problem} tensor {names[0]!r}"
                fix = "use the base model and the adapter_config.json it was trained with"
                raise ActshiftError(f"{unfit} ({len(names)} in all); {fix}.")
        for name, shape in required.items():
            if self.shapes[name] != shape:
                stored = f"tensor {name!r} has shape {list(self.shapes[name])}, and the model needs {list(shape)}"
                raise ActshiftError(f"{self.path} does not fit this model: {stored}; use the base model it is for.")

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the tensors of the file with their names in the bare model, one at a time.

        Raises:
            ActshiftError: for a tensor with values that are not finite.
        """
        with safe_open(self.path, framework="pt") as file:
            for name in self.shapes:
                tensor = file.get_tensor(PEFT_PREFIX + name)
                check_tensor(self.path, name, tensor)
                yield name, tensor


def check_tensor(source: str, name: str, tensor: Tensor) -> None:
    """Check that a tensor of an adapter has floating-point values that are finite, or is a counter.

    Raises:
        ActshiftError: if not. `source` starts the message.
    """
    if tensor.dtype not in TORCH_DTYPES and (tensor.dtype, tensor.ndim) != (torch.int64, 0):
        dtype = str(tensor.dtype).removeprefix("torch.")
        raise ActshiftError(f"{source} holds the tensor {name!r} of dtype {dtype}; {ALLOWED_DTYPES}.")
    if not torch.isfinite(tensor.float()).all():  # also a float64 that becomes infinite in the adapter's float32
        problem = f"{source} holds values that are not finite, in {name!r}"
        raise ActshiftError(f"{problem}: its training diverged. Train again with a lower learning rate.")


def read_checkpoint(source: str, subfolder: str | None = None, **hub: Any) -> Checkpoint:
    """Return the tensor shapes of the adapter in folder or hub repository `source`, read from the file's header.

    `hub` are keyword arguments of `huggingface_hub.hf_hub_download`, such as `revision`.

    Raises:
        ActshiftError: if adapter_model.safetensors is missing, truncated or damaged.
    """
    path = adapter_file(source, SAFETENSORS_WEIGHTS_NAME, subfolder, **hub)
    try:
        _check_header_size(path)
        with safe_open(path, framework="pt") as tensors:
            slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118
            shapes = {name: tuple(stored.get_shape()) for name, stored in slices.items()}
            dtypes = {name: str(stored.get_dtype()) for name, stored in slices.items()}
    except (SafetensorError, OSError) as error:
        raise ActshiftError(f"{path} is damaged ({error}); copy or train the adapter again.") from error
    for name, dtype in dtypes.items():
        if dtype not in DTYPES and (dtype, shapes[name]) != COUNTER:
            raise ActshiftError(f"{path} holds the tensor {name!r} of dtype {dtype}; {ALLOWED_DTYPES}.")
    # Thousands of adapters have the same tensor names; interned, each is kept in memory once.
    own = {name: shape for name, shape in shapes.items() if name.startswith(PEFT_PREFIX)}
    names = {intern(name.removeprefix(PEFT_PREFIX)): shape for name, shape in own.items()}
    return Checkpoint(str(path), names, tuple(shapes.keys() - own.keys()))


def _check_header_size(path: str) -> None:
    with Path(path).open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
    if size > MAX_HEADER and size <= Path(path).stat().st_size:  # else the file is damaged
        raise ActshiftError(f"{path} has a header of {size:,} bytes; at most {MAX_HEADER:,} are read.")


def read_adapter_json(source: str, subfolder: str | None = None, **hub: Any) -> dict[str, Any]:
    """Return adapter_config.json of folder or hub repository `source` as a dict.

    Raises:
        ActshiftError: if the file is missing, or is not the config of an adapter.
    """
    path = adapter_file(source, CONFIG_NAME, subfolder, **hub)
    try:
        if (size := Path(path).stat().st_size) > MAX_CONFIG:
            raise ActshiftError(f"{path} has {size:,} bytes, and the config of an adapter has at most {MAX_CONFIG:,}.")
        text = Path(path).read_text(encoding="utf-8")
        if text.startswith("\ufeff"):
            raise ActshiftError(f"{path} starts with a byte order mark, which PEFT cannot read; save it without one.")
        values = json.loads(text)
    except ActshiftError:
        raise
    except (ValueError, OSError) as error:
        raise ActshiftError(f"{path} is damaged: it is not valid JSON ({error}).") from error
    except RecursionError as error:
        raise ActshiftError(f"{path} is damaged: its values are nested too deeply.") from error
    if not isinstance(values, dict) or "peft_type" not in values:
        raise ActshiftError(f"{path} is not the config of an adapter: it has no peft_type.")
    return cast(dict[str, Any], values)


def adapter_file(source: str, name: str, subfolder: str | None = None, **hub: Any) -> str:
    """Return the local path of the file `name` of an adapter, in a folder or in the cache of the hub.

    Raises:
        ActshiftError: if the folder or repository lacks the file, or the hub cannot be reached.
    """
    folder = Path(source, subfolder or "")
    if folder.is_dir():
        if not (folder / name).is_file():
            raise ActshiftError(f"{folder} is not an adapter: it holds no {name}.")
        return str(folder / name)
    missing = f"No adapter at {source!r}: there is no such folder"
    try:
        return hf_hub_download(source, name, subfolder=subfolder, **hub)
    except LocalEntryNotFoundError as error:  # a subclass of EntryNotFoundError
        raise ActshiftError(f"{missing}, it is not in the cache, and the hub cannot be reached.") from error
    except EntryNotFoundError as error:
        raise ActshiftError(f"The hub repository {source!r} is not an adapter: it holds no {name}.") from error
    except (OSError, ValueError) as error:
        raise ActshiftError(f"{missing}, and the hub returned an error ({first_line(error)}).") from error
