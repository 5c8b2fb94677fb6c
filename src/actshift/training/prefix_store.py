"""A store for tensors by key, in memory or in a temporary file, up to a limit."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, cast

import torch
from torch import Tensor

GIB = 2**30


class TensorStore:
    """Copies of tensors by key, with at most `limit` bytes in total. A tensor that exceeds the limit is not stored.

    They are kept in memory, or in an unnamed file in `folder`, which the operating system removes when the process
    ends. The file is read and not memory-mapped: on a full disk a write raises OSError, while a mapped page would kill
    the process.

    >>> store = TensorStore(limit=8)
    >>> store.keep(b"a", torch.ones(2)); store.keep(b"b", torch.ones(2))
    >>> store.get(b"a"), store.get(b"b")
    (tensor([1., 1.]), None)
    """

    def __init__(self, limit: float, folder: Path | None = None) -> None:
        self.limit, self.used = limit, 0
        self.file: Any = TemporaryFile(dir=folder) if folder else None  # noqa: SIM115  closed by `close`
        self.entries: dict[bytes, Any] = {}
        """Tensors, or their offset, shape and dtype in the file."""

    def keep(self, key: bytes, tensor: Tensor) -> None:
        """Store a copy on the CPU, if the key is new and there is room."""
        size = tensor.numel() * tensor.element_size()
        if key in self.entries or self.used + size > self.limit:
            return
        if self.file is None:
            self.entries[key] = tensor.detach().to("cpu", copy=True)
        else:
            self.entries[key] = self.file.seek(0, 2), tensor.shape, tensor.dtype
            self.file.write(raw_bytes(tensor.detach()))
        self.used += size

    def get(self, key: bytes) -> Tensor | None:
        """Return a copy of the tensor with this key, on the CPU, or None."""
        if key not in self.entries:
            return None
        if self.file is None:
            return self.entries[key].clone()  # the caller may change it in place
        offset, shape, dtype = self.entries[key]
        tensor = torch.empty(shape, dtype=dtype)
        self.file.seek(offset)
        self.file.readinto(raw_bytes(tensor))
        return tensor

    def close(self) -> None:
        """Free the memory or the disk space."""
        self.entries.clear()
        if self.file is not None:
            self.file.close()


def raw_bytes(tensor: Tensor) -> memoryview:
    """Return the bytes of a tensor, without a copy if it is contiguous and on the CPU.

    >>> bytes(raw_bytes(torch.tensor([True, False])))
    b'\\x01\\x00'
    """
    return memoryview(cast(Any, tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy()))
