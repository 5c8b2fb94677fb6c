"""Compute the position of each token in prompt and completion from the inputs of a model's forward pass."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from actshift.errors import ActshiftError
from actshift.sites import Positions
from actshift.sites.positions import steered_tokens, token_index

IGNORED = -100  # the label of a token that is not a target, in transformers and torch
PACKED = ("cu_seq_lens_q", "cu_seq_lens_k", "cu_seqlens", "seq_idx", "packed_seq_params")
ELSE_ALL = "or steer at Positions.all()"


@dataclass
class TokenPositions:
    """The position of each token: `index [batch, seq]` as in `token_index`, and prompt lengths `[batch, 1]`."""

    index: Tensor
    length: Tensor
    trains: bool = False  # True if a loss is computed from this forward pass
    masks: dict[Positions, Tensor] = field(default_factory=dict[Positions, Tensor])

    def mask(self, positions: Positions, x: Tensor) -> Tensor:
        """Return a bool mask `[..., 1]` of the steered tokens of `x [batch, seq, d]` or `[batch * seq, d]`.

        Raises:
            ActshiftError: if `x` has another shape, or training would steer no token because no row has a prompt.
        """
        if positions not in self.masks:
            if self.trains and positions.where in ("prompt", "ends") and not bool((self.length > 0).any()):
                raise ActshiftError(
                    f"In this batch no row has a prompt, because its first token is a target already. An adapter at "
                    f"the {positions} learns nothing; give prompt tokens the label {IGNORED}, {ELSE_ALL}."
                )
            self.masks[positions] = steered_tokens(positions, self.index, self.length)
        mask = self.masks[positions].to(x.device)
        if x.shape[:-1] == mask.shape:
            return mask[..., None]
        if x.ndim == 2 and x.shape[0] == mask.numel():  # OPT flattens batch and sequence before its MLP
            return mask.reshape(-1, 1)
        raise ActshiftError(
            f"The model was called with {list(mask.shape)} tokens and passes {list(x.shape)} to the adapter, so the "
            f"positions of its tokens are unknown; choose another site, {ELSE_ALL}."
        )


@dataclass
class GeneratePrompt:
    """The prompt of a `generate` call: its attended columns `[rows, columns]` bool, and the last of its token ids."""

    attended: Tensor
    ids: Tensor | None

    def locate(self, ids: Tensor | None, past: int, batch: int, seq: int) -> tuple[Tensor, Tensor]:
        """Return the `token_index [batch, seq]` of the tokens of one forward pass, and the prompt lengths `[batch, 1]`.

        The pass may be a prefill or a chunk of one, a step with or without a cache, or a check of candidates. The beams
        of a row are consecutive rows. `past` is the number of tokens in the cache.

        Raises:
            ActshiftError: if the pass does not continue this prompt.
        """
        rows, columns = self.attended.shape
        if batch % rows:
            raise ActshiftError(f"generate was called with {rows} rows and runs a forward pass over {batch}.")
        length = self.attended.sum(-1, keepdim=True)
        index = token_index(self.attended)
        if past + seq > columns:
            index = torch.cat([index, length + torch.arange(past + seq - columns, device=length.device)], -1)
        index = index[:, past : past + seq]
        self._check_same_tokens(ids, past)
        return index.repeat_interleave(batch // rows, 0), length.repeat_interleave(batch // rows, 0)

    def _check_same_tokens(self, ids: Tensor | None, past: int) -> None:
        # Classifier-free guidance and token healing run forward passes over tokens that are not the prompt's.
        if ids is None or self.ids is None:
            return
        columns, width = self.attended.shape[1], self.ids.shape[1]
        start, end = max(past, columns - width), min(past + ids.shape[1], columns)
        if start >= end:
            return
        expected = self.ids[:, start - columns + width : end - columns + width].to(ids.device)
        actual = ids[:, start - past : end - past]
        if not torch.equal(expected.repeat_interleave(len(actual) // len(expected), 0), actual):
            raise ActshiftError(
                "generate runs a forward pass over tokens that are not its prompt (guidance_scale and token_healing do "
                f"this), so it is undefined which of them to steer; do not use that setting, {ELSE_ALL}."
            )


@dataclass
class ForwardInputs:
    """The inputs of one forward pass. Nothing is computed from them until a layer asks for a mask."""

    arguments: dict[str, Any]
    shape: tuple[int, int] | None  # [batch, seq] of the tokens; None for images and audio
    past: int | None  # number of tokens in the KV cache; None if it is unknown
    generative: bool
    trains: bool
    lengths: Tensor | None
    generate: GeneratePrompt | None

    @classmethod
    def from_call(
        cls,
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        generative: bool,
        lengths: Tensor | None,
        generate: GeneratePrompt | None,
    ) -> ForwardInputs:
        """Read the arguments of a module's forward; labels are one for each token only if it is `generative`."""
        if args:
            kwargs = {**dict(zip(inspect.signature(module.forward).parameters, args, strict=False)), **kwargs}
        tokens = kwargs.get("input_ids") if kwargs.get("input_ids") is not None else kwargs.get("inputs_embeds")
        shape = None if tokens is None else (tokens.shape[0], tokens.shape[1])
        past = _cached_tokens(kwargs.get("past_key_values", kwargs.get("cache_params")))
        trains = generative and module.training and torch.is_grad_enabled()
        return cls(kwargs, shape, past, generative, trains, lengths, generate)

    def tokens(self, x: Tensor) -> TokenPositions:
        """Return the positions of the tokens.

        The hidden states `x [batch, seq, d]` give the shape if the model is called without tokens.

        Raises:
            ActshiftError: if the end of the prompts is unknown.
        """
        if self.shape is None:
            self.shape = self._shape_of(x)
        if self.past is None:
            raise ActshiftError(
                f"The cache of this model does not tell how many tokens it holds; set use_cache=False, {ELSE_ALL}."
            )
        for name in PACKED:
            if self.arguments.get(name) is not None:
                raise _packed(f"{name} is given")
        batch, seq = self.shape
        if self.generate is not None:
            index, length = self.generate.locate(self.arguments.get("input_ids"), self.past, batch, seq)
        else:
            attended = self._attended(self.shape, self.past, x.device)
            index = token_index(attended)[:, self.past :]
            self._check_not_packed(index)
            length = self._prompt_length(index, attended)
        if self.lengths is not None:
            if batch % len(self.lengths):
                raise ActshiftError(
                    f"prompt_lengths gives {len(self.lengths)} lengths for {batch} rows; give one for each row."
                )
            length = self.lengths.to(index.device).repeat_interleave(batch // len(self.lengths))[:, None]
        return TokenPositions(index, length, self.trains)

    def _shape_of(self, x: Tensor) -> tuple[int, int]:
        # The attention mask of an audio model covers samples, not hidden states.
        mask_shape = getattr(self.arguments.get("attention_mask"), "shape", x.shape[:2])
        if x.ndim != 3 or mask_shape != x.shape[:2]:
            raise ActshiftError(
                f"The model is called without input_ids or inputs_embeds and passes {list(x.shape)} to the adapter, so "
                f"its rows are unknown; choose another site, {ELSE_ALL}."
            )
        return x.shape[0], x.shape[1]

    def _attended(self, shape: tuple[int, int], past: int, device: torch.device) -> Tensor:
        """Return which tokens are attended, `[batch, past + seq]` bool."""
        mask, total = self.arguments.get("attention_mask"), past + shape[1]
        if mask is None:
            return torch.ones(shape[0], total, dtype=torch.bool, device=device)
        if not isinstance(mask, Tensor) or mask.ndim != 2 or mask.shape[1] < total:
            actual = list(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
            raise ActshiftError(
                f"positions need an attention_mask [batch, {total}] that covers all tokens so far, got {actual}; pass "
                f"such a mask, {ELSE_ALL}."
            )
        if bool((mask > 1).any()):
            raise _packed("attention_mask numbers them")
        return (mask[:, :total] != 0).expand(shape[0], -1)

    def _check_not_packed(self, index: Tensor) -> None:
        ids = self.arguments.get("position_ids")
        if ids is None or ids.shape[-1] != index.shape[1]:
            return
        step = 1
        if ids.ndim == 3:  # one row for each axis: text first if there are four, else time, which is constant in images
            ids, step = ids[0], 1 if ids.shape[0] == 4 else 0
        ids = ids.expand(index.shape).to(index.device)
        largest = ids.masked_fill(index < 0, -1).cummax(-1).values
        if bool(((index[:, 1:] >= 0) & (ids[:, 1:] < largest[:, :-1] + step)).any()):
            raise _packed("position_ids start again inside a row")

    def _prompt_length(self, index: Tensor, attended: Tensor) -> Tensor:
        """Return prompt lengths `[batch, 1]`: up to the first target, else the cached tokens, else all tokens."""
        total = attended.sum(-1, keepdim=True)
        labels = self.arguments.get("labels") if self.generative else None
        if labels is not None:
            if labels.shape != index.shape:
                raise ActshiftError(
                    f"labels {list(labels.shape)} do not match the tokens {list(index.shape)}, so the prompts are "
                    f"unknown; give one label for each token, {ELSE_ALL}."
                )
            target = (labels.to(index.device) != IGNORED) & (index >= 0)
            first = index.gather(1, target.long().argmax(-1, keepdim=True))
            return torch.where(target.any(-1, keepdim=True), first, total)
        if self.past:
            return attended[:, : self.past].sum(-1, keepdim=True)
        if self.trains and self.lengths is None:
            raise ActshiftError(
                "A model in training mode is called without labels, so it is unknown where completions begin; pass "
                "labels, wrap the call in `with actshift.prompt_lengths(model, [5, 7])`, call model.eval() if every "
                f"token is prompt, {ELSE_ALL}."
            )
        return total


def _cached_tokens(cache: Any) -> int | None:
    if cache is None:
        return 0
    try:
        return int(cache.get_seq_length())
    except (AttributeError, ValueError):  # the state of a recurrent model has no length
        return None


def _packed(evidence: str) -> ActshiftError:
    return ActshiftError(
        f"Rows of this batch hold several sequences ({evidence}: packing or padding-free training), so their prompts "
        f"are unknown; train with packing=False and padding_free=False, {ELSE_ALL}."
    )
