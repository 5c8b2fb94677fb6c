"""What an unfinished extraction has fitted already."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from actshift.analysis.capture import Batch
from actshift.analysis.extract.report import LayerFit
from actshift.errors import ActshiftError
from actshift.files import check_new_folder
from actshift.tuner import steering_layers

FILE = "unfinished.safetensors"


@dataclass(frozen=True)
class Store:
    """The fits of an extraction in one file of its folder; `key` names the models, the text and the ranks."""

    folder: Path
    key: str

    @classmethod
    def of(cls, folder: str | Path, batches: Sequence[Batch], settings: Mapping[str, Any], resume: bool) -> Store:
        """Open the folder of an extraction.

        Raises ActshiftError where it holds something and is not to be resumed, or is that of another extraction.
        """
        text = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
        for batch in batches:
            text.update(batch["input_ids"].cpu().numpy().tobytes())
        store = cls(Path(folder), text.hexdigest())
        if not resume:
            check_new_folder(store.folder)
        elif not (store.folder / FILE).is_file():
            raise ActshiftError(f"{folder} holds no unfinished extraction to go on with; leave --resume out.")
        elif store._stored()["key"] != store.key:
            raise ActshiftError(
                f"{folder} holds an extraction with other models, text or ranks; give what it began with, or another "
                "folder."
            )
        return store

    def load(self, model: nn.Module) -> dict[int, LayerFit]:
        """Put the stored fits into the model's adapters, and return their figures by layer."""
        if not (self.folder / FILE).is_file():
            return {}
        tensors = _tensors(model)
        with safe_open(self.folder / FILE, framework="pt") as stored:
            for name in stored.keys():  # noqa: SIM118  it is no mapping
                tensors[name].data.copy_(stored.get_tensor(name))
        return {one["layer"]: LayerFit(**one) for one in self._stored()["fits"]}

    def save(self, model: nn.Module, fits: Mapping[int, LayerFit]) -> None:
        """Write the adapters and the figures of the layers that are fitted, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f".{FILE}.{os.getpid()}.part"
        about = {"key": self.key, "fits": [asdict(fit) for fit in fits.values()]}
        try:
            save_file(
                {n: t.detach().contiguous() for n, t in _tensors(model).items()}, part, {"about": json.dumps(about)}
            )
            part.replace(self.folder / FILE)
        finally:
            part.unlink(missing_ok=True)

    def finish(self) -> None:
        """Take the file away: the adapter is written."""
        (self.folder / FILE).unlink(missing_ok=True)

    def _stored(self) -> dict[str, Any]:
        try:
            with safe_open(self.folder / FILE, framework="pt") as stored:
                return json.loads(stored.metadata()["about"])
        except Exception as error:
            raise ActshiftError(f"{self.folder / FILE} is damaged; delete it and start again.") from error


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {
        f"{layer.layer_index}.{name}": tensor
        for layer in steering_layers(model).values()
        for shift in layer.lora_steer.values()
        for name, tensor in shift.named_parameters()
    }
