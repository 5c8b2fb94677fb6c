"""Files of a saved adapter: find them, read the config, and check tensor names and shapes without loading values."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from sys import intern
from typing import Any, cast

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from safetensors import SafetensorError, safe_open

from actshift.errors import ActshiftError, first_line

PEFT_PREFIX = "base_model.model."
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Checkpoint:
    """The path of an adapter's tensors, and their shapes by the names they have in the bare model."""

    path: str
    shapes: Mapping[str, Shape]

    def check_fits(self, expected: Mapping[str, Shape], also_allowed: Iterable[str]) -> None:
        """Check that the file contains the `expected` tensors and no others.

        `also_allowed` are parameters and modules that PEFT may save too (resized embeddings, `modules_to_save`).

        Raises:
            ActshiftError: for a missing tensor, one that is not allowed, or one of another shape.
        """
        allowed = {*expected, *also_allowed}
        missing = [name for name in expected if name not in self.shapes]
        foreign = [name for name in self.shapes if allowed.isdisjoint(accumulate(name.split("."), "{}.{}".format))]
        for names, problem in ((missing, "lacks"), (foreign, "holds the foreign")):
            if names:
                unfit = f"{self.path} does not fit this model and config: it {problem} tensor {names[0]!r}"
                fix = "use the base model and the adapter_config.json it was trained with"
                raise ActshiftError(f"{unfit} ({len(names)} in all); {fix}.")
        for name, shape in expected.items():
            if self.shapes[name] != shape:
                stored = f"tensor {name!r} has shape {list(self.shapes[name])}, and the model needs {list(shape)}"
                raise ActshiftError(f"{self.path} does not fit this model: {stored}; use the base model it is for.")


def read_checkpoint(source: str, subfolder: str | None = None, **hub: Any) -> Checkpoint:
    """Return the tensor shapes of the adapter in folder or hub repository `source`, read from the file's header.

    `hub` are keyword arguments of `huggingface_hub.hf_hub_download`, such as `revision`.

    Raises:
        ActshiftError: if adapter_model.safetensors is missing, truncated or damaged.
    """
    path = adapter_file(source, SAFETENSORS_WEIGHTS_NAME, subfolder, **hub)
    try:
        with safe_open(path, framework="pt") as tensors:
            shapes = {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ActshiftError(f"{path} is damaged ({error}); copy or train the adapter again.") from error
    # Thousands of adapters have the same tensor names; interned, each is kept in memory once.
    return Checkpoint(str(path), {intern(name.removeprefix(PEFT_PREFIX)): shape for name, shape in shapes.items()})


def read_adapter_json(source: str, subfolder: str | None = None, **hub: Any) -> dict[str, Any]:
    """Return adapter_config.json of folder or hub repository `source` as a dict.

    Raises:
        ActshiftError: if the file is missing, or is not the config of an adapter.
    """
    path = adapter_file(source, CONFIG_NAME, subfolder, **hub)
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ActshiftError(f"{path} is damaged: it is not valid JSON ({error}).") from error
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
