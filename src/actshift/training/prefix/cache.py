"""A model whose first blocks run once for each batch, and from then on give what they gave."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from actshift.errors import ActshiftError
from actshift.sites import hidden_of, with_hidden
from actshift.training.prefix.blocks import Prefix
from actshift.training.prefix.store import Store, raw

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

    def __init__(self, prefix: Prefix, store: Store) -> None:
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
