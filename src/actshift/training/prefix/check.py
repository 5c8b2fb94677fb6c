"""Whether a run can keep what its first blocks give, said before it begins."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from actshift.errors import ActshiftError
from actshift.sites.blocks import text_config, unwrap
from actshift.training.arguments import total_steps
from actshift.training.prefix.blocks import Prefix
from actshift.training.prefix.cache import ANEW, CachedPrefix
from actshift.training.prefix.store import InMemory
from actshift.training.quiet import traceless
from actshift.training.settings import TrainSettings


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
        with torch.random.fork_rng(), traceless(model), CachedPrefix(prefix, InMemory(math.inf)) as cache:
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
