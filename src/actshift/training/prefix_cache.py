"""The cache of a run's prefix: whether it can have one, and for the length of its training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from actshift.data.collate import padded
from actshift.errors import ActshiftError
from actshift.sites import find_blocks, hidden_of, with_hidden
from actshift.sites.blocks import text_config, unwrap
from actshift.training.arguments import restore_model_after, total_steps, uses_bf16
from actshift.training.prefix_store import GIB, BatchStore, InMemory, OnDisk, raw
from actshift.training.settings import TrainSettings
from actshift.training.trainer import LengthGroupedSampler, lengths_of
from actshift.tuner.layer import CHILD

if TYPE_CHECKING:
    from actshift.training.fit import Job


@dataclass(frozen=True)
class Prefix:
    """The first `blocks` of a model, and their `owner`, whose forward runs all blocks one after another."""

    owner: nn.Module
    blocks: tuple[nn.Module, ...]


def find_prefix(model: nn.Module) -> Prefix:
    """Return the blocks whose forward passes no trained parameter takes part in.

    A block that is steered after its end alone is one of them: the shift is a hook on its output.

    Raises ActshiftError where there is none, and for an encoder-decoder, whose blocks are two rows.

    >>> from actshift.demo import load_base
    >>> model = load_base()[0].requires_grad_(False)
    >>> _ = model.model.layers[2].requires_grad_(True)
    >>> len(find_prefix(model).blocks)
    2
    """
    found = find_blocks(model)
    lists = {name.rpartition(".")[0] for name, _ in found}
    if len(lists) > 1:
        raise ActshiftError(
            f"{type(unwrap(model)).__name__} has an encoder and a decoder, and cache_prefix is for one row of blocks; "
            "leave it off."
        )
    blocks = []
    for _, block in found:
        trained = [name for name, parameter in block.named_parameters() if parameter.requires_grad]
        if all(name.startswith(f"{CHILD}.") for name in trained):
            blocks.append(block)
        if trained:
            break
    if not blocks:
        raise ActshiftError(
            "Training begins inside the first block, so there is nothing below that cache_prefix could keep; steer "
            "upper blocks alone, as --layers 4: does, or leave it off."
        )
    return Prefix(unwrap(model).get_submodule(lists.pop().rpartition(".")[0]), tuple(blocks))


ANEW = (
    "The blocks below the first steered one give something else for the same batch the second time (dropout, or "
    "kernels that sum in no fixed order), so cache_prefix cannot keep it; leave it off, or set dropout to 0."
)


class CachedPrefix(AbstractContextManager):
    """While it is entered, the blocks of a prefix give for a batch that was met before what is in the store.

    A batch is known by all tensors that the blocks' owner is called with. So what is kept was computed from the very
    same numbers in the very same shape, and a run's losses are those without the cache to the bit, as far as the
    kernels give the same twice. The first batch met again is computed again, and compared.

    Raises ActshiftError where that comparison fails, and for blocks that hand on more than hidden states.
    """

    def __init__(self, prefix: Prefix, store: BatchStore) -> None:
        self.prefix, self.store = prefix, store
        self.key = b""
        self.known: Tensor | None = None
        self.compared = False
        self.depends = False
        """Whether what the blocks gave depends on a trained parameter."""
        self.forms: dict[int, Any] = {}
        """What each block returns, with None for the hidden states."""

    def __enter__(self) -> CachedPrefix:
        with ExitStack() as undo:
            undo.callback(self.store.close)
            undo.callback(self.prefix.owner.register_forward_pre_hook(self._meet, with_kwargs=True).remove)
            for place, block in enumerate(self.prefix.blocks):
                undo.callback(_restore, block, block.__dict__.get("forward"))
                block.forward = partial(self._forward, place, block.forward)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._undo.close()

    def _meet(self, owner: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.key = key_of((args, kwargs))
        known = self.store.get(self.key)
        self.known = None if known is None else known.to(next(self.prefix.blocks[-1].parameters()).device)

    def _forward(self, place: int, computed: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self.known is not None and self.compared:
            return with_hidden(self.forms[place], self.known)
        output = computed(*args, **kwargs)
        self.forms[place] = self._form(self.prefix.blocks[place], output)
        if place == len(self.prefix.blocks) - 1:
            self._note(hidden_of(output))
        return output

    def _form(self, block: nn.Module, output: Any) -> Any:
        form = with_hidden(output, None)
        if not isinstance(hidden_of(output), Tensor) or any(isinstance(leaf, Tensor) for leaf in tree_leaves(form)):
            raise ActshiftError(
                f"{type(block).__name__} hands on more than its hidden states, which cache_prefix does not keep; "
                "leave it off."
            )
        return form

    def _note(self, hidden: Tensor) -> None:
        self.depends = hidden.requires_grad
        if self.known is None:
            self.store.keep(self.key, hidden)
        elif not torch.equal(hidden, self.known):
            raise ActshiftError(ANEW)
        else:
            self.compared = True


def key_of(call: Any) -> bytes:
    """Return a fingerprint of all tensors in a call's arguments, but for single numbers, which only losses read.

    >>> key_of(torch.zeros(2)) == key_of(torch.zeros(2)), key_of(torch.zeros(2)) == key_of(torch.ones(2))
    (True, False)
    """
    found = blake2b(digest_size=16)
    for leaf in tree_leaves(call):
        if isinstance(leaf, Tensor) and leaf.dim():
            found.update(f"{leaf.dtype}{tuple(leaf.shape)}".encode())
            found.update(raw(leaf))
    return found.digest()


def _restore(block: nn.Module, forward: Any) -> None:
    block.__dict__.pop("forward", None)
    if forward is not None:
        block.forward = forward


def check_worth(settings: TrainSettings, rows: int, steps: int) -> None:
    """Raise ActshiftError where a run of `steps` steps over `rows` rows meets no batch twice."""
    if settings.two_phases:
        raise ActshiftError("cache_prefix does not go with LoFiT, whose two phases steer other heads; leave it off.")
    if not settings.group_by_length:
        raise ActshiftError(
            "cache_prefix keeps whole batches, and those drawn at random do not come again; add group_by_length, which "
            "has the same ones in every epoch."
        )
    if steps <= total_steps(rows, replace(settings, epochs=1.0, max_steps=None)):
        raise ActshiftError(
            f"A run of {steps} steps meets none of its {rows} rows twice, so cache_prefix would keep what is never "
            "read; train for more epochs, or leave it off."
        )


def check_exact(model: Any, prefix: Prefix, batch: Mapping[str, Tensor]) -> None:
    """Run a batch through the model with and without what the prefix gave before, as in training.

    Raises ActshiftError where the prefix depends on what is trained (embeddings, say), gives something else the second
    time (dropout), or where the model then gives something else, to the bit.
    """
    training, inner = model.training, cast(Any, unwrap(model))
    model.train()
    try:
        with torch.random.fork_rng(), restore_model_after(model), CachedPrefix(prefix, InMemory(math.inf)) as cache:
            inner.config.use_cache = False  # as trainers do
            plain = _outputs(model, batch, seed=0)
            if cache.depends:
                raise ActshiftError(
                    "Something below the first steered block is trained too, such as the embeddings, so cache_prefix "
                    "cannot keep what comes out of it; leave it off."
                )
            _outputs(model, batch, seed=1)
            if not cache.compared:
                raise ActshiftError(ANEW)
            again = _outputs(model, batch, seed=0)
    finally:
        model.train(training)
    if not all(torch.equal(one, other) for one, other in zip(plain, again, strict=True)):
        raise ActshiftError(
            f"{type(inner).__name__} gives something else where its first blocks are skipped, since more comes out of "
            "them than hidden states (the loss of their routers, say); leave cache_prefix off."
        )


def _outputs(model: Any, batch: Mapping[str, Tensor], seed: int) -> list[Tensor]:
    torch.manual_seed(seed)
    routers = {"output_router_logits": True} if hasattr(text_config(model), "output_router_logits") else {}  # as TRL
    return [value.detach() for value in model(**batch, **routers).values() if isinstance(value, Tensor)]


LOOKED_AT = 2
"""How many rows the check before a run reads."""


def check_prefix(model: Any, job: Job) -> None:
    """Raise ActshiftError where the cache that a job asks for has nothing to keep, or would not be exact."""
    examples = job.examples
    check_worth(job.settings, len(examples.train.examples), job.steps)
    prefix = find_prefix(model)
    rows = examples.objective.read(examples.train, job.tokenizer)[:LOOKED_AT]
    device = next(model.parameters()).device
    batch = {name: tensor.to(device) for name, tensor in padded(rows, job.tokenizer).items()}
    check_exact(model, prefix, batch)


def cached_prefix(model: Any, job: Job) -> AbstractContextManager[Any]:
    """Return what has a job's prefix cached while it is entered; what does nothing where it asks for no cache."""
    settings = job.settings
    if settings.cache_prefix == "off":
        return nullcontext()
    limit = settings.cache_limit * GIB
    store = InMemory(limit) if settings.cache_prefix == "memory" else OnDisk(limit, job.folder.checkpoints)
    return CachedPrefix(find_prefix(model), store)


def cache_bytes(
    adapted: Any, settings: TrainSettings, examples: Sequence[Mapping[str, Any]], steps: int, width: int
) -> int:
    """Return what the cache of a run will hold of the training rows in bytes, 0 where it asks for none.

    It is Σ rows · longest · width over the batches, × 2 (bf16) or 4 (fp32), as far as the limit goes.

    Raises ActshiftError where there is nothing to keep.
    """
    if settings.cache_prefix == "off":
        return 0
    check_worth(settings, len(examples), steps)
    find_prefix(adapted)
    lengths = lengths_of(examples)
    sampler = LengthGroupedSampler(lengths, settings.batch_size, settings.seed)
    batches = [batch for batch in (*sampler.batches, sampler.rest) if batch]
    tokens = sum(len(batch) * max(lengths[row] for row in batch) for batch in batches)
    return min(tokens * width * (2 if uses_bf16(settings) else 4), int(settings.cache_limit * GIB))
