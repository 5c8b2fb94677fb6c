"""Compute the position of each token in prompt and completion from the inputs of a model's forward pass."""

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from actshift.data.encode import IGNORE_INDEX
from actshift.errors import ActshiftError
from actshift.sites import Positions
from actshift.sites.positions import steered_tokens, token_index
from actshift.tuner.token_axes import FLAT, token_axes, token_shape, wrong_shape

CACHES = ("past_key_values", "cache_params", "state", "mems", "past_buckets_states")
PACKED = ("cu_seq_lens_q", "cu_seq_lens_k", "cu_seqlens", "seq_idx", "packed_seq_params")


def unknown_prompt(problem: str, fix: str) -> ActshiftError:
    """Return an error for a forward pass whose prompt cannot be determined."""
    return ActshiftError(f"The prompt is unknown: {problem}. {fix}, or steer at Positions.all().")


@dataclass
class TokenPositions:
    """The position of each token: `index [batch, seq]` as in `token_index`, and prompt lengths `[batch, 1]`."""

    index: Tensor
    length: Tensor
    trains: bool = False
    masks: dict[Positions, Tensor] = field(default_factory=dict[Positions, Tensor])

    def mask(self, positions: Positions, x: Tensor, layer: Any) -> Tensor:
        """Return a bool mask of the tokens of `x` that are steered, which broadcasts to `x [..., d]`.

        Raises:
            ActshiftError: if the axes of `x` are unknown, or training would steer no token as no row has a prompt.
        """
        if positions not in self.masks:
            if self.trains and positions.where in ("prompt", "ends") and not bool((self.length > 0).any()):
                problem = f"no row has a prompt (its first token is a target), so {positions} steers nothing"
                raise unknown_prompt(problem, f"Give prompt tokens the label {IGNORE_INDEX}")
            self.masks[positions] = steered_tokens(positions, self.index, self.length)
        mask = self.masks[positions].to(x.device)
        axes = token_axes(x, (mask.shape[0], mask.shape[1]), layer)
        if axes == FLAT:
            return mask.reshape(-1, 1)
        if x.shape[axes[1]] != mask.shape[1]:
            raise wrong_shape(x, (mask.shape[0], mask.shape[1]), layer)
        sizes = [x.shape[axis] if axis in axes else 1 for axis in range(x.ndim)]
        return (mask if axes[0] < axes[1] else mask.T).reshape(sizes)


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
        if ids is not None and self.ids is not None and not self._continues(self.ids, ids, past):
            problem = "generate runs a forward pass over other tokens, which guidance_scale and token_healing do"
            raise unknown_prompt(problem, "Do not use these settings")
        index, repeats = index[:, past : past + seq], batch // rows
        return index.repeat_interleave(repeats, 0), length.repeat_interleave(repeats, 0)

    def _continues(self, prompt: Tensor, ids: Tensor, past: int) -> bool:
        columns = self.attended.shape[1]
        offset = columns - prompt.shape[1]
        start, end = max(past, offset), min(past + ids.shape[1], columns)
        if start >= end:
            return True
        expected, actual = prompt[:, start - offset : end - offset].to(ids.device), ids[:, start - past : end - past]
        return torch.equal(expected.repeat_interleave(len(actual) // len(expected), 0), actual)


@dataclass
class ForwardInputs:
    """The inputs of one forward pass. No token positions are computed from them until a layer asks for a mask."""

    arguments: dict[str, Any]
    generative: bool  # True if labels are tokens, not classes
    trains: bool  # True if a loss is computed from this forward pass
    lengths: Tensor | None  # set by `prompt_lengths`
    generate: GeneratePrompt | None  # the prompt of the running `generate` call

    def __post_init__(self) -> None:
        self.given = token_shape(self.arguments)
        batch, seq = self.given or (0, None)
        self.shape = None if seq is None else (batch, seq)  # None for images and audio
        # The length of the KV cache is read before the forward pass extends it.
        self.cache = next((name for name in CACHES if self.arguments.get(name) is not None), None)
        self.past: int | None = None if self.cache else 0
        with suppress(AttributeError, ValueError):  # no cache, or the state of a recurrent model, which has no length
            self.past = int(cast(Any, self.arguments.get(self.cache or "")).get_seq_length())

    def tokens(self, x: Tensor, layer: Any) -> TokenPositions:
        """Return the positions of the tokens; without input tokens, the activations `x` of a layer show their shape.

        Raises:
            ActshiftError: if the end of the prompts is unknown.
        """
        shape = self.shape or self._shape_of_images(x, layer)
        if self.past is None:
            setting = "use_mems" if self.cache == "mems" else "use_cache"  # XLNet
            raise unknown_prompt("the cache of this model has no number of tokens", f"Set {setting}=False")
        if given := [name for name in PACKED if self.arguments.get(name) is not None]:
            raise _packed(f"{given[0]} is given")
        batch, seq = shape
        if self.generate is not None:
            index, length = self.generate.locate(self.arguments.get("input_ids"), self.past, batch, seq)
        else:
            attended = self._attended(shape, self.past, x.device)
            index = token_index(attended)[:, self.past :]
            self._check_not_packed(index)
            length = self._prompt_length(index, attended)
        if self.lengths is not None:
            if batch % (count := len(self.lengths)):
                raise ActshiftError(f"prompt_lengths gives {count} lengths for {batch} rows; give one for each row.")
            length = self.lengths.to(index.device).repeat_interleave(batch // count)[:, None]
        return TokenPositions(index, length, self.trains)

    def _shape_of_images(self, x: Tensor, layer: Any) -> tuple[int, int]:
        """Return the shape `(batch, seq)` of the tokens that a model without input tokens passes to a layer."""
        axes = token_axes(x, self.given or (x.shape[0], None), layer)
        # The attention mask of an audio model covers samples, not hidden states.
        mask_shape = getattr(self.arguments.get("attention_mask"), "shape", None)
        if axes == FLAT or (mask_shape is not None and mask_shape != (x.shape[axes[0]], x.shape[axes[1]])):
            problem = f"the model is called without input_ids and passes {list(x.shape)} to the adapter"
            raise unknown_prompt(problem, "Choose another site")
        return x.shape[axes[0]], x.shape[axes[1]]

    def _attended(self, shape: tuple[int, int], past: int, device: torch.device) -> Tensor:
        """Return which tokens are attended, `[batch, past + seq]` bool."""
        mask, total = self.arguments.get("attention_mask"), past + shape[1]
        if mask is None:
            return torch.ones(shape[0], total, dtype=torch.bool, device=device)
        if not isinstance(mask, Tensor) or mask.ndim != 2 or mask.shape[1] < total:
            actual = list(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
            fix = f"Pass an attention_mask [batch, {total}] that covers all tokens so far"
            raise unknown_prompt(f"the attention_mask is {actual}", fix)
        if bool((mask > 1).any()):
            raise _packed("attention_mask numbers them")
        return (mask[:, :total] != 0).expand(shape[0], -1)

    def _check_not_packed(self, index: Tensor) -> None:
        if (ids := self.arguments.get("position_ids")) is None or ids.shape[-1] != index.shape[1]:
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
                problem = f"labels {list(labels.shape)} do not match the tokens {list(index.shape)}"
                raise unknown_prompt(problem, "Pass one label for each token")
            target = (labels.to(index.device) != IGNORE_INDEX) & (index >= 0)
            first = index.gather(1, target.long().argmax(-1, keepdim=True))
            return torch.where(target.any(-1, keepdim=True), first, total)
        if self.past:
            return attended[:, : self.past].sum(-1, keepdim=True)
        if self.trains and self.lengths is None:
            fix = "Pass labels or use `with actshift.prompt_lengths(model, [5, 7])`, call model.eval() if all is prompt"
            raise unknown_prompt("a model in training mode is called without labels", fix)
        return total


def _packed(evidence: str) -> ActshiftError:
    problem = f"rows of this batch contain several sequences ({evidence})"
    return unknown_prompt(problem, "Train with packing=False and padding_free=False")
