"""Calibrate the strength of an adapter by the change that it makes to next-token distributions."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from actshift.data.collate import pad_batch
from actshift.data.template import Message
from actshift.errors import ActshiftError, is_number
from actshift.evaluation.generation import batches, evaluation_mode, generation_config
from actshift.evaluation.prompts import encode_prompts, pad_left
from actshift.loading import check_vocabulary, load_tokenizer
from actshift.sites.blocks import unwrap
from actshift.tuner import prompt_lengths, set_strength, steering_layers, strength

QUANTILE = 0.95
TOLERANCE = 0.05  # of the target, relative
LARGEST = 2.0**12  # the search covers strengths from 1 / LARGEST to LARGEST
NARROWEST = 1.01  # ratio of two strengths between which the KL jumps over the target
FEWEST_TOKENS = 100  # with fewer, the percentile depends on five tokens or less


@dataclass(frozen=True)
class Divergence:
    """KL(steered ‖ unsteered) in nats at one strength: its 95th percentile and its mean over `tokens` tokens."""

    strength: float
    kl: float
    mean_kl: float
    tokens: int


@dataclass(frozen=True)
class Calibration:
    """The strength that was found, its KL divergence, and the divergence at every strength that was tried, in order."""

    target_kl: float
    found: Divergence
    tried: tuple[Divergence, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return all figures, ready for JSON."""
        return {"target_kl": self.target_kl, **asdict(self.found), "tried": [asdict(each) for each in self.tried]}

    def __str__(self) -> str:
        found = f"strength {self.found.strength:.4g}: KL {self.found.kl:.3g} nats in the 95th percentile"
        return f"{found} of {self.found.tokens:,} tokens (mean {self.found.mean_kl:.2g})"


def calibrate(
    model: Any,
    prompts: Sequence[str | Sequence[Message]],
    target_kl: float = 1.0,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    max_new_tokens: int = 32,
    batch_size: int = 8,
    add_special_tokens: bool = True,
    adapter_name: str | None = None,
    on_progress: Callable[[str, int, int], None] = lambda phase, done, total: None,
) -> Calibration:
    """Find the positive strength at which an adapter changes next-token distributions by `target_kl`, and set it.

    The measure is the 95th percentile of KL(p_s ‖ p_0) in nats, over the tokens of greedy completions that the model
    writes at strength s; p_0 is the model at strength 0. The result is within 5 % of the target, unless a warning says
    that the KL jumps over it. It is set as by `set_strength`, and stored in the adapter's config, from where
    `save_pretrained` and `load_adapter` take it.

    Args:
        model: A causal language model with a steering or joint adapter, trained or not. Other active adapters, and the
            LoRA half of a joint one, act on both sides.
        prompts: Texts, or lists of messages, which the chat template renders.
        tokenizer: None loads the tokenizer of the base model.
        max_new_tokens: Limit of each completion. Its end token counts as a token.
        add_special_tokens: False for texts that a chat template rendered, which already contain special tokens.
        adapter_name: None is the active adapter.
        on_progress: Called with the phase (one for each strength), its finished batches, and their total.

    Raises:
        ActshiftError: The target is not a positive number, there are no prompts, there is no active adapter or several,
            the logits are not finite, no strength up to 4096 reaches the target, or the smallest exceeds it. The
            strength is then unchanged.

    Source: the percentile along greedy completions is the measure of https://github.com/wassname/steering-lite; the
    search is this project's, docs/vector.md#calibrated-strength.

    >>> from actshift import contrast
    >>> from actshift.demo import load_base
    >>> model, tokenizer = load_base()
    >>> french, english = ["anna a sept chats .", "ben a dix clés ."], ["anna has seven cats .", "ben has ten keys ."]
    >>> steered = contrast(model, tokenizer, french, english).attach(model)
    >>> calibrate(steered, english * 8, tokenizer=tokenizer).found.strength == steered.peft_config["default"].strength
    True
    """
    if not is_number(target_kl) or target_kl <= 0:
        raise ActshiftError(f"target_kl must be a positive number of nats such as 1.0, got {target_kl!r}.")
    name = _adapter_to_calibrate(model, adapter_name)
    how = (max_new_tokens, batch_size, add_special_tokens, name, on_progress)
    measure = Measurement(model, tokenizer, prompts, *how)
    with evaluation_mode(model):
        found = _search(measure, target_kl)
    tried = tuple(measure.tried.values())
    _warn(found, tried, target_kl)
    model.peft_config[name].strength = found.strength
    set_strength(model, found.strength, name)
    return Calibration(target_kl, found, tried)


def _adapter_to_calibrate(model: Any, adapter_name: str | None) -> str:
    """Return the name of the adapter, which must be active: the KL of an inactive one is 0 at every strength."""
    layers = steering_layers(model).values()
    active = sorted({name for layer in layers for name in layer.active_adapters if name in layer.lora_steer})
    if not active:
        raise ActshiftError(f"{type(model).__name__} has no active steering adapter to calibrate; attach or load one.")
    if adapter_name is None and len(active) > 1:
        raise ActshiftError(f"There are several active adapters, {', '.join(active)}; give adapter_name.")
    if adapter_name is not None and adapter_name not in active:
        raise ActshiftError(f"There is no active adapter {adapter_name!r}; there is {', '.join(active)}.")
    return adapter_name or active[0]


class Measurement:
    """Measure the divergence of an adapter at a strength, and remember what was measured."""

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase | None,
        prompts: Sequence[str | Sequence[Message]],
        max_new_tokens: int,
        batch_size: int,
        add_special_tokens: bool,
        name: str,
        on_progress: Callable[[str, int, int], None],
    ) -> None:
        if isinstance(prompts, str) or not prompts:
            raise ActshiftError(f"prompts must be a list of at least one prompt, better a few dozen; got {prompts!r}.")
        if model.config.is_encoder_decoder:
            raise ActshiftError(f"{type(unwrap(model)).__name__} has an encoder; give a causal language model.")
        self.model, self.name, self.on_progress = model, name, on_progress
        self.tokenizer = tokenizer or load_tokenizer(model.config.name_or_path)
        self.settings = generation_config(model, self.tokenizer, max_new_tokens)
        encoded = encode_prompts(
            model.config, self.tokenizer, prompts, max_new_tokens, add_special_tokens=add_special_tokens
        )
        check_vocabulary(((f"Prompt {row}", ids) for row, ids in enumerate(encoded, 1)), model.config, self.tokenizer)
        self.batches = [[encoded[row] for row in batch] for batch in batches(encoded, batch_size)]
        self.tried: dict[float, Divergence] = {}

    def __call__(self, s: float) -> Divergence:
        """Return the divergence at strength s; raise ActshiftError for logits that are not finite."""
        if s not in self.tried:
            phase, parts = f"Calibrating, strength {s:.3g}", list[Tensor]()
            for done, prompts in enumerate(self.batches, start=1):
                parts += self._batch(prompts, s)
                self.on_progress(phase, done, len(self.batches))
            kl = torch.cat(parts).double()
            percentile = torch.quantile(kl, QUANTILE).item()
            self.tried[s] = Divergence(s, percentile, kl.mean().item(), len(kl))
        return self.tried[s]

    def _batch(self, prompts: Sequence[Sequence[int]], s: float) -> list[Tensor]:
        """Return the divergences `[tokens]` along the completion of each prompt at strength s."""
        model, device = self.model, self.model.device
        inputs = pad_left(prompts, self.settings.pad_token_id, device)
        ends = self.settings.eos_token_id or ()
        with strength(model, s, self.name):
            output = model.generate(**inputs, generation_config=self.settings)
        rows: list[list[int]] = []
        for prompt, ids in zip(prompts, output[:, inputs["input_ids"].shape[1] :].tolist(), strict=True):
            length = next((index for index, token in enumerate(ids, start=1) if token in ends), len(ids))
            rows.append([*prompt, *ids[:length]])
        batch = pad_batch([{"input_ids": row} for row in rows], self.tokenizer)
        batch = {name: tensor.to(device) for name, tensor in batch.items()}
        logits: list[Tensor] = []
        for each in (0.0, s):  # both in one kind of forward pass, so that strength 0 gives exactly 0
            with strength(model, each, self.name), prompt_lengths(model, [len(prompt) for prompt in prompts]):
                logits.append(model(**batch, use_cache=False).logits)
            if not all(logits[-1][index, : len(row)].max().isfinite() for index, row in enumerate(rows)):
                fix = "use float32" if each else "the model itself is damaged or needs float32"
                raise ActshiftError(f"The logits are not finite at strength {each:g}; {fix}.")
        spans = [slice(len(prompt) - 1, len(row) - 1) for prompt, row in zip(prompts, rows, strict=True)]
        return [kl_divergence(logits[1][row, span], logits[0][row, span]).cpu() for row, span in enumerate(spans)]


def kl_divergence(steered: Tensor, base: Tensor) -> Tensor:
    """Return KL(steered ‖ base) in nats, `[tokens]` in float32, of logits `[tokens, vocabulary]`.

    >>> kl_divergence(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 0.0]])).tolist()
    [0.0]
    """
    log_p, log_q = steered.float().log_softmax(-1), base.float().log_softmax(-1)
    p = log_p.exp()
    return torch.where(p > 0, p * (log_p - log_q), 0).sum(-1).clamp_min(0)  # p = 0 where a model masks a token by -inf


def _search(measure: Callable[[float], Divergence], target: float) -> Divergence:
    """Return the divergence at a strength where it is within the tolerance of `target`.

    From strength 1, move by a factor of √(target / KL), as the KL is quadratic in a small s, until the target lies
    between two strengths. Then alternate an interpolation in the logarithms of strength and KL with a bisection.
    """
    low = high = measure(1.0)
    while high.kl < target:
        if _hits(high, target):
            return high
        if high.strength >= LARGEST:
            raise _unreachable(measure, target)
        low, high = high, measure(min(high.strength * _factor(high.kl, target), LARGEST))
    while low.kl >= target:
        if _hits(low, target):
            return low
        if low.strength <= 1 / LARGEST:
            problem = f"The KL is {low.kl:.3g} nats even at strength {low.strength:.2g}, above the target {target:g}"
            raise ActshiftError(f"{problem}; its weights are too large, or its training diverged.")
        low, high = measure(max(low.strength / _factor(low.kl, target), 1 / LARGEST)), low
    bisect = False
    while not (_hits(low, target) or _hits(high, target)) and high.strength / low.strength > NARROWEST:
        share = 0.5 if bisect else _log_share(low.kl, high.kl, target)
        middle = measure(low.strength ** (1 - share) * high.strength**share)
        low, high = (middle, high) if middle.kl < target else (low, middle)
        bisect = not bisect
    return high if _hits(high, target) else low  # between them the greedy completions change, and the KL jumps


def _factor(kl: float, target: float) -> float:
    """Return the factor between a strength of this KL and the target if the KL is quadratic; from 2 to 64."""
    ratio = max(target / kl, kl / target) if kl > 0 else math.inf
    return min(max(math.sqrt(ratio), 2), 64)


def _log_share(low: float, high: float, target: float) -> float:
    """Return where `target` lies between `low` and `high` in logarithms, kept away from both ends."""
    if low <= 0:
        return 0.5
    return min(max(math.log(target / low) / math.log(high / low), 0.05), 0.95)


def _hits(point: Divergence, target: float) -> bool:
    return abs(point.kl - target) <= TOLERANCE * target


def _unreachable(measure: Any, target: float) -> ActshiftError:
    most = max(measure.tried.values(), key=lambda point: point.kl)
    if most.kl == 0:
        return ActshiftError("The adapter has no effect at any strength: its weights are zero, or it steers no token.")
    reached = f"No strength up to {LARGEST:g} reaches a KL of {target:g} nats"
    return ActshiftError(f"{reached}; the most is {most.kl:.3g}, at {most.strength:.3g}. Choose a lower target.")


def _warn(found: Divergence, tried: Sequence[Divergence], target: float) -> None:
    """Warn if the tokens are few, the KL is not monotone in the strength, or it jumps over the target."""
    if found.tokens < FEWEST_TOKENS:
        few = f"The 95th percentile is of {found.tokens} tokens only"
        warnings.warn(f"{few}; give more prompts, or raise max_new_tokens.", stacklevel=3)
    ordered = sorted(tried, key=lambda point: point.strength)
    for weaker, stronger in pairwise(ordered):
        if stronger.kl < (1 - TOLERANCE) * weaker.kl:
            figures = f"{weaker.kl:.3g} nats at {weaker.strength:.3g} and {stronger.kl:.3g} at {stronger.strength:.3g}"
            problem = f"The KL is not monotone in the strength: it is {figures}"
            warnings.warn(f"{problem}; more than one strength may reach the target.", stacklevel=3)
            break
    if not _hits(found, target):
        jump = f"The KL jumps over {target:g} nats near strength {found.strength:.4g}, where the completions change"
        warnings.warn(f"{jump}; it is {found.kl:.3g} there. More prompts make it smoother.", stacklevel=3)
