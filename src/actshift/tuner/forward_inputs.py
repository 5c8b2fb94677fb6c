"""From what a model is called with to the place of each of its tokens in prompt and completion."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from actshift.errors import ActshiftError
from actshift.sites import Positions
from actshift.sites.positions import steered_tokens, token_index


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


IGNORED = -100  # the label of a token that is no target, in transformers and in torch
PACKED = ("cu_seq_lens_q", "cu_seq_lens_k", "cu_seqlens", "seq_idx", "packed_seq_params")
ELSE_ALL = "or steer at Positions.all()"


@dataclass
class Tokens:
    """Each token's `token_index [batch, seq]`, and each row's prompt length `[batch, 1]`."""

    index: Tensor
    length: Tensor
    learns: bool = False  # whether a loss is computed from this forward
    masks: dict[Positions, Tensor] = field(default_factory=dict)

    def mask(self, positions: Positions, x: Tensor) -> Tensor:
        """Return which tokens of `x [batch, seq, d]` or `[batch * seq, d]` are steered, `[..., 1]` bool."""
        if positions not in self.masks:
            if self.learns and positions.where in ("prompt", "ends") and not bool((self.length > 0).any()):
                raise ActshiftError(
                    f"no row has a prompt, as its first token is a target already, so an adapter at the {positions} "
                    f"learns nothing; give prompt tokens the label {IGNORED}, {ELSE_ALL}."
                )
            self.masks[positions] = steered_tokens(positions, self.index, self.length)
        mask = self.masks[positions].to(x.device)
        if x.shape[:-1] == mask.shape:
            return mask[..., None]
        if x.ndim == 2 and x.shape[0] == mask.numel():  # OPT flattens batch and seq before its MLP
            return mask.reshape(-1, 1)
        raise ActshiftError(
            f"the model was called with {list(mask.shape)} tokens and hands {list(x.shape)} to the adapter, so its "
            f"positions are not known; choose another site, {ELSE_ALL}."
        )


@dataclass
class ForwardInputs:
    """What one forward was called with, of which nothing is computed until a layer asks."""

    shape: tuple[int, int] | None  # [batch, seq] of the tokens; None for pixels and sound
    ids: Tensor | None
    attention_mask: Any
    position_ids: Tensor | None
    labels: Tensor | None
    past: int | None  # tokens in the KV cache; None where the cache does not say
    packed_by: str | None
    learns: bool
    lengths: Tensor | None
    generate: GeneratePrompt | None

    @classmethod
    def of(
        cls,
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        generative: bool,
        lengths: Tensor | None,
        generate: GeneratePrompt | None,
    ) -> ForwardInputs:
        """Read the call of a module's forward; an encoder (not `generative`) has labels of another kind."""
        if args:
            kwargs = {**dict(zip(inspect.signature(module.forward).parameters, args, strict=False)), **kwargs}
        ids, embeds = kwargs.get("input_ids"), kwargs.get("inputs_embeds")
        given = embeds if ids is None else ids
        return cls(
            shape=None if given is None else (given.shape[0], given.shape[1]),
            ids=ids,
            attention_mask=kwargs.get("attention_mask"),
            position_ids=kwargs.get("position_ids"),
            labels=kwargs.get("labels") if generative else None,
            past=_cached(kwargs.get("past_key_values", kwargs.get("cache_params"))),
            packed_by=next((name for name in PACKED if kwargs.get(name) is not None), None),
            learns=generative and module.training and torch.is_grad_enabled(),
            lengths=lengths,
            generate=generate,
        )

    def tokens(self, x: Tensor) -> Tokens:
        """Return who is who. `x [batch, seq, d]` are hidden states, for models that are called with no tokens."""
        if self.shape is None:
            self.shape = self._shape_of(x)
        if self.past is None:
            raise ActshiftError(
                f"this model's cache does not say how many tokens it holds; set use_cache=False, {ELSE_ALL}."
            )
        if self.packed_by:
            raise _packed(f"{self.packed_by} is given")
        batch, seq = self.shape
        if self.generate is not None:
            index, length = self.generate.place(self.ids, self.past, batch, seq)
        else:
            attended = self._attended(x.device)
            whole = token_index(attended)
            index = whole[:, self.past :]
            self._refuse_packing(index)
            length = self._prompt_length(index, attended)
        if self.lengths is not None:
            if batch % len(self.lengths):
                raise ActshiftError(
                    f"prompt_lengths gives {len(self.lengths)} lengths for {batch} rows; give one a row."
                )
            length = self.lengths.to(index.device).repeat_interleave(batch // len(self.lengths))[:, None]
        return Tokens(index, length, self.learns)

    def _shape_of(self, x: Tensor) -> tuple[int, int]:
        mask_shape = getattr(
            self.attention_mask, "shape", x.shape[:2]
        )  # a mask over samples is none over hidden states
        if x.ndim != 3 or mask_shape != x.shape[:2]:
            raise ActshiftError(
                f"the model is called without input_ids or inputs_embeds and hands {list(x.shape)} to the adapter, of "
                f"which the rows are not known; choose another site, {ELSE_ALL}."
            )
        return x.shape[0], x.shape[1]

    def _attended(self, device: torch.device) -> Tensor:
        assert self.shape is not None and self.past is not None
        mask, total = self.attention_mask, self.past + self.shape[1]
        if mask is None:
            return torch.ones(self.shape[0], total, dtype=torch.bool, device=device)
        if not isinstance(mask, Tensor) or mask.ndim != 2 or mask.shape[1] < total:
            what = list(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
            raise ActshiftError(
                f"positions need an attention_mask [batch, {total}] that covers every token so far, got {what}; "
                f"give that one, {ELSE_ALL}."
            )
        if bool((mask > 1).any()):
            raise _packed("attention_mask numbers them")
        return (mask[:, :total] != 0).expand(self.shape[0], -1)

    def _refuse_packing(self, index: Tensor) -> None:
        places = self.position_ids
        if places is None or places.shape[-1] != index.shape[1]:
            return
        step = 1
        if places.ndim == 3:  # by axis: text in front where there are four, else time, which stands still in an image
            places, step = places[0], 1 if places.shape[0] == 4 else 0
        places = places.expand(index.shape).to(index.device)
        seen = places.masked_fill(index < 0, -1).cummax(-1).values
        if bool(((index[:, 1:] >= 0) & (places[:, 1:] < seen[:, :-1] + step)).any()):
            raise _packed("position_ids start again inside a row")

    def _prompt_length(self, index: Tensor, attended: Tensor) -> Tensor:
        total = attended.sum(-1, keepdim=True)
        if self.labels is not None:
            if self.labels.shape != index.shape:
                raise ActshiftError(
                    f"labels {list(self.labels.shape)} do not match the tokens {list(index.shape)}, so the prompts are "
                    f"not known; give one label a token, {ELSE_ALL}."
                )
            target = (self.labels.to(index.device) != IGNORED) & (index >= 0)
            first = index.gather(1, target.long().argmax(-1, keepdim=True))
            return torch.where(target.any(-1, keepdim=True), first, total)
        if self.past:
            return attended[:, : self.past].sum(-1, keepdim=True)
        if self.learns and self.lengths is None:
            raise ActshiftError(
                "a model in training mode is called without labels, so it is not known where completions begin; "
                "give labels, say so by `with actshift.prompt_lengths(model, [5, 7])`, call model.eval() where "
                f"all is prompt, {ELSE_ALL}."
            )
        return total


def _cached(cache: Any) -> int | None:
    if cache is None:
        return 0
    try:
        return int(cache.get_seq_length())
    except (AttributeError, ValueError):  # states of a recurrent model, which count nothing
        return None


def _packed(how: str) -> ActshiftError:
    return ActshiftError(
        f"rows of this batch hold several sequences ({how}: packing, or padding-free training), whose prompts cannot "
        f"be told apart; train with packing=False and padding_free=False, {ELSE_ALL}."
    )
