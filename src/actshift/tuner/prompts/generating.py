"""What `generate` was called with, which the forwards that it makes do not say."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from actshift.errors import ActshiftError
from actshift.sites.positions import token_index


@dataclass
class GeneratePrompt:
    """The prompt of a `generate` call: its attended columns `[rows, columns]` bool, and the ids that end them."""

    attended: Tensor
    ids: Tensor | None

    def place(self, ids: Tensor | None, past: int, batch: int, seq: int) -> tuple[Tensor, Tensor]:
        """Return the `token_index [batch, seq]` of a forward's tokens, and the prompt lengths `[batch, 1]`.

        The forward may be a prefill, a chunk of one, a step with a cache or the whole so far without, and may check
        candidates; beams stand row by row beside each other.
        """
        rows, columns = self.attended.shape
        if batch % rows:
            raise ActshiftError(f"generate was called with {rows} rows and runs a forward over {batch}.")
        length = self.attended.sum(-1, keepdim=True)
        index = token_index(self.attended)
        if past + seq > columns:
            index = torch.cat([index, length + torch.arange(past + seq - columns, device=length.device)], -1)
        index = index[:, past : past + seq]
        self._check_same(ids, past)
        return index.repeat_interleave(batch // rows, 0), length.repeat_interleave(batch // rows, 0)

    def _check_same(self, ids: Tensor | None, past: int) -> None:
        # Classifier-free guidance and token healing run forwards over other tokens than the prompt's.
        if ids is None or self.ids is None:
            return
        columns, width = self.attended.shape[1], self.ids.shape[1]
        start, end = max(past, columns - width), min(past + ids.shape[1], columns)
        if start >= end:
            return
        mine = self.ids[:, start - columns + width : end - columns + width].to(ids.device)
        theirs = ids[:, start - past : end - past]
        if not torch.equal(mine.repeat_interleave(len(theirs) // len(mine), 0), theirs):
            raise ActshiftError(
                "generate runs a forward over other tokens than its prompt (as guidance_scale and token_healing do), "
                "and which of them are steered is not defined; leave that setting out, or steer at Positions.all()."
            )


class Scope(Protocol):
    """Where the running `generate` is noted."""

    generate: GeneratePrompt | None


def note_generate(root: nn.Module, scope: Scope) -> None:
    """Have `root.generate` note its prompt in the scope while it runs, whoever calls it: a user, PEFT or a trainer."""
    if not isinstance(root.__dict__.get("generate"), _Noting):
        setattr(root, "generate", _Noting(_generate, root, scope, root.__dict__.get("generate")))  # noqa: B010


def forget_generate(root: nn.Module) -> None:
    """Undo `note_generate`."""
    own = root.__dict__.get("generate")
    if isinstance(own, _Noting):
        del root.generate
        if own.args[2] is not None:
            root.generate = own.args[2]


class _Noting(partial):  # a partial, since a closure or a bound method would break pickle or deepcopy
    pass


def _generate(root: Any, scope: Scope, instead: Any, inputs: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
    generate = instead or partial(type(root).generate, root)
    if scope.generate is not None:  # an assisted generation lets the model draft its own candidates
        return generate(inputs, *args, **kwargs)
    ids = inputs if inputs is not None else kwargs.get("input_ids")
    mask = kwargs.get("attention_mask")
    if mask is None:
        mask = _without_padding(root, ids, args, kwargs)
        if mask is not None and not bool(mask.all()):
            kwargs["attention_mask"] = mask
    if mask is None:
        embeds = kwargs.get("inputs_embeds")
        mask = torch.ones(embeds.shape[:2] if embeds is not None else (1, 1))
    scope.generate = GeneratePrompt(mask != 0, ids)
    try:
        return generate(inputs, *args, **kwargs)
    finally:
        scope.generate = None


def _without_padding(root: Any, ids: Tensor | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """The mask that transformers makes where none is given: all but a padding token that ends nothing."""
    if ids is None or ids.shape[1] == 0:
        return None
    given = kwargs.get("generation_config") or (args[0] if args else None)

    def setting(name: str) -> Any:
        values = (kwargs.get(name), getattr(given, name, None), getattr(root.generation_config, name, None))
        return next((value for value in values if value is not None), None)

    pad, end = setting("pad_token_id"), setting("eos_token_id")
    ends = torch.as_tensor(end).flatten().tolist() if end is not None else []
    if pad is None or pad in ends:
        return torch.ones_like(ids)
    return (ids != pad).long()
