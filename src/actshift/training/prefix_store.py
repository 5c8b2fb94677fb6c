"""Stores for tensors by key, in memory or in a temporary file, up to a limit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, cast

import torch
from torch import Tensor

GIB = 2**30


class BatchStore(ABC):
    """Copies of tensors by key, with at most `limit` bytes in total. A tensor that exceeds the limit is not stored.

    >>> store = InMemory(limit=8)
    >>> store.keep(b"a", torch.ones(2)); store.keep(b"b", torch.ones(2))
    >>> store.get(b"a"), store.get(b"b")
    (tensor([1., 1.]), None)
    """

    def __init__(self, limit: float) -> None:
        self.limit, self.used = limit, 0
        self.entries: dict[bytes, Any] = {}

    def keep(self, key: bytes, tensor: Tensor) -> None:
        """Store a copy on the CPU, if the key is new and there is room."""
        size = tensor.numel() * tensor.element_size()
        if key not in self.entries and self.used + size <= self.limit:
            self.entries[key] = self._write(tensor.detach())
            self.used += size

    def get(self, key: bytes) -> Tensor | None:
        """Return a copy of the tensor with this key, on the CPU, or None."""
        return self._read(self.entries[key]) if key in self.entries else None

    def close(self) -> None:
        """Free the storage."""
        self.entries.clear()

    @abstractmethod
    def _write(self, tensor: Tensor) -> Any:
        """Copy a tensor into the storage, and return an entry to read it with."""

    @abstractmethod
    def _read(self, entry: Any) -> Tensor:
        """Return a copy of the tensor of an entry."""


class InMemory(BatchStore):
    """A store in memory."""

    def _write(self, tensor: Tensor) -> Tensor:
        return tensor.to("cpu", copy=True)

    def _read(self, entry: Tensor) -> Tensor:
        return entry.clone()  # the next block may change it in place


class OnDisk(BatchStore):
    """A store in an unnamed file in `folder`, which the operating system removes when the process ends.

    The file is read and not memory-mapped: on a full disk a write raises OSError, while a mapped page would kill the
    process.
    """

    def __init__(self, limit: float, folder: Path) -> None:
        super().__init__(limit)
        self.file: Any = TemporaryFile(dir=folder)  # noqa: SIM115  closed by `close`

    def close(self) -> None:
        """Free the disk space."""
        super().close()
        self.file.close()

    def _write(self, tensor: Tensor) -> Any:
        offset = self.file.seek(0, 2)
        self.file.write(raw_bytes(tensor))
        return offset, tensor.shape, tensor.dtype

    def _read(self, entry: Any) -> Tensor:
        offset, shape, dtype = entry
        tensor = torch.empty(shape, dtype=dtype)
        self.file.seek(offset)
        self.file.readinto(raw_bytes(tensor))
        return tensor


def raw_bytes(tensor: Tensor) -> memoryview:
    """Return the bytes of a tensor, without a copy if it is contiguous and on the CPU.

    >>> bytes(raw_bytes(torch.tensor([True, False])))
    b'\\x01\\x00'
    """
    return memoryview(cast(Any, tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy()))
