"""A saved adapter's tensors, by name and shape, read from the header and compared before a model is touched."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from sys import intern
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from safetensors import SafetensorError, safe_open

from actshift.errors import ActshiftError, first_line

PEFT_PREFIX = "base_model.model."
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Checkpoint:
    """Where an adapter's tensors are stored, and their shapes by the names they have in the bare model."""

    path: str
    shapes: Mapping[str, Shape]

    def check_fits(self, expected: Mapping[str, Shape], also_allowed: Iterable[str]) -> None:
        """Raise ActshiftError unless the file holds exactly the `expected` tensors.

        `also_allowed` are names of the model's own parameters and modules, which PEFT may save beside the
        adapter (embeddings of a resized vocabulary, `modules_to_save`).
        """
        allowed = set(also_allowed)
        missing = [name for name in expected if name not in self.shapes]
        foreign = [name for name in self.shapes if name not in expected and not _under(name, allowed)]
        for names, what in ((missing, "lacks"), (foreign, "holds the foreign")):
            if names:
                raise ActshiftError(
                    f"{self.path} does not fit this model and config: it {what} tensor {names[0]!r}"
                    f"{f' and {len(names) - 1} more' if names[1:] else ''}; "
                    "use the base model and the adapter_config.json it was trained with."
                )
        for name, shape in expected.items():
            if self.shapes[name] != shape:
                raise ActshiftError(
                    f"{self.path} does not fit this model: tensor {name!r} has shape {list(self.shapes[name])}, "
                    f"and the model needs {list(shape)}; use the base model it was trained on."
                )


def _under(name: str, allowed: set[str]) -> bool:
    parts = name.split(".")
    return any(".".join(parts[:end]) in allowed for end in range(1, len(parts) + 1))


def read_checkpoint(source: str, subfolder: str | None = None, **hub: Any) -> Checkpoint:
    """Return the tensors of the adapter in folder or hub repository `source`, without reading their values.

    Raises ActshiftError where there is no adapter_model.safetensors, and where it is truncated or damaged.
    """
    path = fetch(source, SAFETENSORS_WEIGHTS_NAME, subfolder, **hub)
    try:
        with safe_open(path, framework="pt") as tensors:
            shapes = {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ActshiftError(
            f"{path} is damaged and cannot be read ({error}); copy or train the adapter again."
        ) from error
    # Of thousands of adapters the names are the same, and kept once.
    return Checkpoint(str(path), {intern(name.removeprefix(PEFT_PREFIX)): shape for name, shape in shapes.items()})


def read_json(source: str, subfolder: str | None = None, **hub: Any) -> dict[str, Any]:
    """Return adapter_config.json of folder or hub repository `source` as a dict.

    Raises ActshiftError where there is none, it is no JSON object, or it is another kind of adapter's.
    """
    path = fetch(source, CONFIG_NAME, subfolder, **hub)
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ActshiftError(f"{path} is damaged: it is not valid JSON ({error}).") from error
    if not isinstance(values, dict) or "peft_type" not in values:
        raise ActshiftError(f"{path} is not the config of an adapter: it names no peft_type.")
    return values


def fetch(source: str, name: str, subfolder: str | None = None, **hub: Any) -> str:
    """Return the local path of a file of an adapter, from a folder or through the hub's cache.

    Raises ActshiftError where the folder or the repository does not hold it, or the hub cannot be reached.
    """
    folder = Path(source, subfolder or "")
    if folder.is_dir():
        if not (folder / name).is_file():
            raise ActshiftError(f"{folder} is not an adapter: it holds no {name}.")
        return str(folder / name)
    try:
        return hf_hub_download(source, name, subfolder=subfolder, **hub)
    except LocalEntryNotFoundError as error:  # a subclass of the next, which says something else
        raise ActshiftError(
            f"no adapter at {source!r}: there is no such folder, it is not in the cache, and the hub cannot be reached."
        ) from error
    except EntryNotFoundError as error:
        raise ActshiftError(f"the hub repository {source!r} is not an adapter: it holds no {name}.") from error
    except (OSError, ValueError) as error:
        raise ActshiftError(
            f"no adapter at {source!r}: there is no such folder, and the hub did not give it ({first_line(error)})."
        ) from error
