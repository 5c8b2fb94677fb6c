"""Cache the output of a model's first blocks for batches that repeat in every epoch, if nothing in them is trained.

Source: this project, docs/method.md#prefix-cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from actshift.data.collate import pad_batch
from actshift.errors import ActshiftError
from actshift.sites import find_blocks, hidden_of, with_hidden
from actshift.sites.blocks import text_config, unwrap
from actshift.training.settings import TrainSettings
from actshift.training.trainer import LengthGroupedSampler, lengths_of, restore_forward, restore_model_after, uses_bf16
from actshift.tuner.layer import CHILD

GIB = 2**30
UNSTABLE = "The blocks below the first steered one are not deterministic (dropout, or their kernels)"
NOT_REPRODUCIBLE = f"{UNSTABLE}; leave cache_prefix off, or set dropout to 0."


class Prefix(NamedTuple):
    """The first `blocks` of a model, and their `owner`, whose forward runs all blocks one after another."""

    owner: nn.Module
    blocks: tuple[nn.Module, ...]


def find_prefix(model: nn.Module) -> Prefix:
    """Return the blocks whose forward passes involve no trained parameter, up to one that is steered at its output.

    Raises:
        ActshiftError: training starts in the first block, or the model has an encoder and a decoder.

    >>> from actshift.demo import load_base
    >>> model = load_base()[0].requires_grad_(False)
    >>> _ = model.model.layers[2].requires_grad_(True)
    >>> len(find_prefix(model).blocks)
    2
    """
    named_blocks = find_blocks(model)
    lists = {name.rpartition(".")[0] for name, _ in named_blocks}
    if len(lists) > 1:
        raise ActshiftError(f"{type(unwrap(model)).__name__} has an encoder and a decoder; leave cache_prefix off.")
    blocks: list[nn.Module] = []
    for _, block in named_blocks:
        trained = [name for name, parameter in block.named_parameters() if parameter.requires_grad]
        if all(name.startswith(f"{CHILD}.") for name in trained):
            blocks.append(block)
        if trained:
            break
    if not blocks:
        problem = "Training starts inside the first block, so cache_prefix has nothing to cache"
        raise ActshiftError(f"{problem}; steer only upper blocks, for example with --layers 4:, or leave it off.")
    return Prefix(unwrap(model).get_submodule(lists.pop().rpartition(".")[0]), tuple(blocks))


class CachedPrefix(ExitStack):
    """Replace the forward of a prefix's blocks by stored results for known batches, inside a `with` block.

    A batch is identified by all tensors in the call of the blocks' owner. With deterministic kernels, the losses are
    bit-identical to a run without the cache. The first batch that repeats is computed again to check this.

    Raises:
        ActshiftError: this check fails, or a block returns tensors besides its hidden states.
    """

    def __init__(self, prefix: Prefix, store: TensorStore) -> None:
        super().__init__()
        self.prefix, self.store, self.key = prefix, store, b""
        self.cached: Tensor | None = None
        self.compared = self.needs_gradient = False  # the latter: the blocks' output depends on a trained parameter
        self.templates: dict[int, Any] = {}  # the output of each block, with None for the hidden states

    def __enter__(self) -> CachedPrefix:
        self.callback(self.store.close)
        self.callback(self.prefix.owner.register_forward_pre_hook(self._look_up, with_kwargs=True).remove)
        for index, block in enumerate(self.prefix.blocks):
            self.callback(restore_forward, block, block.__dict__.get("forward"))
            block.forward = partial(self._forward, index, block.forward)
        return self

    def _look_up(self, owner: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.key = batch_key((args, kwargs))
        cached = self.store.get(self.key)
        self.cached = None if cached is None else cached.to(next(self.prefix.blocks[-1].parameters()).device)

    def _forward(self, index: int, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self.cached is not None and self.compared:
            return with_hidden(self.templates[index], self.cached)
        output = forward(*args, **kwargs)
        hidden, template = hidden_of(output), with_hidden(output, None)
        if not isinstance(hidden, Tensor) or any(isinstance(leaf, Tensor) for leaf in tree_leaves(template)):
            block = type(self.prefix.blocks[index]).__name__
            raise ActshiftError(f"{block} returns more than its hidden states; leave cache_prefix off.")
        self.templates[index] = template
        if index < len(self.prefix.blocks) - 1:
            return output
        self.needs_gradient = hidden.requires_grad
        if self.cached is None:
            self.store.keep(self.key, hidden)
        elif torch.equal(hidden, self.cached):
            self.compared = True
        else:
            raise ActshiftError(NOT_REPRODUCIBLE)
        return output


def batch_key(call: Any) -> bytes:
    """Return a hash of all tensors in a call's arguments, except for scalars, which only losses read.

    >>> batch_key(torch.zeros(2)) == batch_key(torch.zeros(2)), batch_key(torch.zeros(2)) == batch_key(torch.ones(2))
    (True, False)
    """
    digest = blake2b(digest_size=16)
    for leaf in tree_leaves(call):
        if isinstance(leaf, Tensor) and leaf.dim():
            digest.update(f"{leaf.dtype}{tuple(leaf.shape)}".encode())
            digest.update(raw_bytes(leaf))
    return digest.digest()


def check_useful(settings: TrainSettings, rows: int, steps: int) -> None:
    """Raise ActshiftError unless a run of `steps` steps over `rows` rows repeats batches."""
    if settings.two_phases:
        raise ActshiftError("cache_prefix does not support LoFiT, whose two phases steer other heads; leave it off.")
    if not settings.group_by_length:
        raise ActshiftError("cache_prefix stores whole batches, and random batches do not repeat; add group_by_length.")
    if steps <= replace(settings, epochs=1.0, max_steps=None).total_steps(rows):
        problem = f"A run of {steps} steps uses none of its {rows} rows twice, so cache_prefix would have no effect"
        raise ActshiftError(f"{problem}; train for more epochs, or leave it off.")


def check_prefix(
    model: Any, settings: TrainSettings, inputs: Sequence[Mapping[str, Any]], tokenizer: Any, steps: int
) -> None:
    """Raise ActshiftError unless batches repeat, and the model's output with the cache is bit-identical.

    The first two of the `inputs`, the training rows, are run through the model in training mode.
    """
    check_useful(settings, len(inputs), steps)
    prefix, device = find_prefix(model), next(model.parameters()).device
    batch = {name: tensor.to(device) for name, tensor in pad_batch(inputs[:2], tokenizer).items()}
    inner = cast(Any, unwrap(model))
    with torch.random.fork_rng(), restore_model_after(model), CachedPrefix(prefix, TensorStore(math.inf)) as cache:
        cache.callback(model.train, model.training)
        model.train()
        inner.config.use_cache = False  # as trainers do
        computed = _outputs(model, batch, seed=0)
        if cache.needs_gradient:
            problem = "A parameter below the first steered block is trained too, such as the embeddings"
            raise ActshiftError(f"{problem}; leave cache_prefix off.")
        _outputs(model, batch, seed=1)
        if not cache.compared:
            raise ActshiftError(NOT_REPRODUCIBLE)
        cached = _outputs(model, batch, seed=0)
    if not all(torch.equal(*pair) for pair in zip(computed, cached, strict=True)):
        problem = f"The output of {type(inner).__name__} changes when its first blocks are skipped"
        raise ActshiftError(f"{problem}, as with the loss of their routers; leave cache_prefix off.")


def _outputs(model: Any, batch: Mapping[str, Tensor], seed: int) -> list[Tensor]:
    torch.manual_seed(seed)
    routers = {"output_router_logits": True} if hasattr(text_config(model), "output_router_logits") else {}  # as in TRL
    return [value.detach() for value in model(**batch, **routers).values() if isinstance(value, Tensor)]


def cached_prefix(model: Any, settings: TrainSettings, folder: Path) -> CachedPrefix:
    """Return the context manager that caches the prefix of `model`; a cache on disk is a file in `folder`."""
    store = TensorStore(settings.cache_limit * GIB, folder if settings.cache_prefix == "disk" else None)
    return CachedPrefix(find_prefix(model), store)


def cache_bytes(
    adapted: Any, settings: TrainSettings, examples: Sequence[Mapping[str, Any]], steps: int, width: int
) -> int:
    """Return the size of the cache for the training rows in bytes: Σ rows · longest · width over the batches, × 2 or 4.

    Raises ActshiftError if the run cannot use a cache.
    """
    if settings.cache_prefix == "off":
        return 0
    check_useful(settings, len(examples), steps)
    find_prefix(adapted)
    lengths = lengths_of(examples)
    sampler = LengthGroupedSampler(lengths, settings.batch_size, settings.seed)
    batches = [batch for batch in (*sampler.batches, sampler.rest) if batch]
    tokens = sum(len(batch) * max(lengths[row] for row in batch) for batch in batches)
    return min(tokens * width * (2 if uses_bf16(settings) else 4), int(settings.cache_limit * GIB))


class TensorStore:
    """Copies of tensors by key, with at most `limit` bytes in total. A tensor that exceeds the limit is not stored.

    They are kept in memory, or in an unnamed file in `folder` that ends with the process. It is not memory-mapped: on a
    full disk a write raises OSError, while a mapped page would kill the process.

    >>> store = TensorStore(limit=8)
    >>> store.keep(b"a", torch.ones(2)); store.keep(b"b", torch.ones(2))
    >>> store.get(b"a"), store.get(b"b")
    (tensor([1., 1.]), None)
    """

    def __init__(self, limit: float, folder: Path | None = None) -> None:
        self.limit, self.used = limit, 0
        self.file: Any = TemporaryFile(dir=folder) if folder else None  # noqa: SIM115  closed by `close`
        self.entries: dict[bytes, Any] = {}  # tensors, or their offset, shape and dtype in the file

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
