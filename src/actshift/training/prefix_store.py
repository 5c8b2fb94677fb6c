"""Where the outputs of whole batches are kept, in memory or in a file, up to a limit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, cast

import torch
from torch import Tensor

GIB = 2**30


class BatchStore(ABC):
    """Tensors by key, on the CPU, in as many `limit` bytes; those that come when it is full are not kept.

    >>> store = InMemory(limit=8)
    >>> store.keep(b"a", torch.ones(2)); store.keep(b"b", torch.ones(2))
    >>> store.get(b"a"), store.get(b"b")
    (tensor([1., 1.]), None)
    """

    def __init__(self, limit: float) -> None:
        self.limit, self.held = limit, 0
        self.places: dict[bytes, Any] = {}

    def keep(self, key: bytes, tensor: Tensor) -> None:
        """Keep a copy under a key that is new, if there is room."""
        size = tensor.numel() * tensor.element_size()
        if key not in self.places and self.held + size <= self.limit:
            self.places[key] = self._put(tensor.detach())
            self.held += size

    def get(self, key: bytes) -> Tensor | None:
        """Return a copy of what is kept under a key, or None."""
        return self._take(self.places[key]) if key in self.places else None

    def close(self) -> None:
        """Let go of all of it."""
        self.places.clear()

    @abstractmethod
    def _put(self, tensor: Tensor) -> Any:
        """Copy a tensor to a place."""

    @abstractmethod
    def _take(self, place: Any) -> Tensor:
        """Copy from a place."""


class InMemory(BatchStore):
    """Kept as they are."""

    def _put(self, tensor: Tensor) -> Tensor:
        return tensor.to("cpu", copy=True)

    def _take(self, place: Tensor) -> Tensor:
        return place.clone()  # the next block may change it in place


class OnDisk(BatchStore):
    """Kept as raw numbers in a file without a name in `folder`, which is gone when the process is, however it ends.

    It is read, not mapped: on a full disk a write raises OSError, where a page of a map would kill the process.
    """

    def __init__(self, limit: float, folder: Path) -> None:
        super().__init__(limit)
        self.file = TemporaryFile(dir=folder)  # noqa: SIM115  closed by `close`

    def close(self) -> None:
        """Give the disk its space back."""
        super().close()
        self.file.close()

    def _put(self, tensor: Tensor) -> Any:
        offset = self.file.seek(0, 2)
        self.file.write(raw(tensor))
        return offset, tensor.shape, tensor.dtype

    def _take(self, place: Any) -> Tensor:
        offset, shape, dtype = place
        tensor = torch.empty(shape, dtype=dtype)
        self.file.seek(offset)
        self.file.readinto(raw(tensor))  # type: ignore[attr-defined]
        return tensor


def raw(tensor: Tensor) -> memoryview:
    """Return the bytes of a tensor: its own where it is contiguous and on the CPU.

    >>> bytes(raw(torch.tensor([True, False])))
    b'\\x01\\x00'
    """
    return memoryview(cast(Any, tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy()))
