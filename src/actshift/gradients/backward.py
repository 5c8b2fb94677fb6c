"""Backward passes over batches for what taps see, on a model that is left as it was."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from actshift.data.encode import IGNORED, partner_loss
from actshift.errors import ActshiftError
from actshift.gradients.taps import BatchGroup, Tap
from actshift.sites.blocks import unwrap

Batch = Mapping[str, Any]
PAIRED = "pair_input_ids"
"""What a batch of pairs of texts holds, whose loss is `partner_loss`."""


@dataclass(frozen=True)
class BackwardStats:
    """What backward passes went over: targets by group `[groups]`, batches, and the mean loss in nats a target."""

    targets: tuple[int, ...]
    batches: int
    loss: float

    @property
    def shares(self) -> Tensor:
        """The weights of the groups' sums in the gradient of the mean loss over all targets `[groups]`, float64."""
        return torch.full((len(self.targets),), 1 / sum(self.targets), dtype=torch.float64)

    def without(self) -> list[Tensor]:
        """Return such weights for the mean over all groups but one, for each that has targets; none for one group."""
        filled = [group for group, count in enumerate(self.targets) if count]
        if len(filled) < 2:
            return []
        return [self._without(group) for group in filled]

    def alone(self) -> list[Tensor]:
        """Return such weights for the mean over one group, for each that has targets."""
        each = torch.eye(len(self.targets), dtype=torch.float64)
        return [each[group] / count for group, count in enumerate(self.targets) if count]

    def _without(self, group: int) -> Tensor:
        rest = self.shares * 0 + 1 / (sum(self.targets) - self.targets[group])
        rest[group] = 0
        return rest


def backward(
    model: nn.Module,
    batches: Iterable[Batch],
    taps: Sequence[Tap],
    clock: BatchGroup,
    handles: Sequence[RemovableHandle],
    on_batch: Callable[[int], None] | None = None,
) -> BackwardStats:
    """Run one backward pass a batch, and take the taps' hooks off whatever happens.

    Batches count by their targets (labels that are not -100), so that the taps hold the gradient of the mean loss
    over all targets; batch i is of group i modulo the clock's groups. No weight gets a gradient.

    Raises ActshiftError for no batch, batches without labels or targets, a loss or gradients that are not finite,
    and gradients that are all zero.
    """
    targets, losses, done = [0] * clock.groups, 0.0, 0
    try:
        with frozen(model), torch.enable_grad():
            for number, batch in enumerate(batches):
                clock.group = number % clock.groups
                count = count_targets(model, batch)
                if count:
                    clock.weight = float(count)
                    losses += count * _backward(model, batch)
                    targets[clock.group] += count
                    for tap in taps:
                        tap.check()
                done = number + 1
                if on_batch:
                    on_batch(done)
    finally:
        for handle in handles:
            handle.remove()
    _check(done, sum(targets), taps)
    return BackwardStats(tuple(targets), done, losses / sum(targets))


def count_targets(model: nn.Module, batch: Batch) -> int:
    """Return how many labels of a batch the loss counts; a decoder's first label is none, as nothing foretells it.

    Of pairs of texts each row is a target: to tell its partner.
    """
    if PAIRED in batch:
        return len(batch[PAIRED])
    labels = batch.get("labels")
    if labels is None:
        raise ActshiftError(
            "The batches have no labels, so there is no loss; give each its labels, with -100 for tokens that are no "
            "target, or make them with actshift.token_batches."
        )
    base: Any = unwrap(model)
    decodes = getattr(base, "can_generate", lambda: False)()
    shifted = decodes and not base.config.is_encoder_decoder
    labels = torch.as_tensor(labels)
    return int(((labels[..., 1:] if shifted else labels) != IGNORED).sum())


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Without dropout and with no gradient for any weight; afterwards every module and parameter is as before.

    A checkpointed block recomputes itself only in training mode, so that is its own mode, and not that of its parts.
    """
    modes = [(module, module.training) for module in model.modules()]
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        for module, _ in modes:
            module.training = bool(getattr(module, "gradient_checkpointing", False))
        for parameter, _ in wanted:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, flag in wanted:
            parameter.requires_grad_(flag)


def on_device(model: nn.Module, batch: Batch) -> dict[str, Any]:
    """Return what the model is called with: the batch where the model is, and no cache."""
    base: Any = unwrap(model)
    device = next(model.parameters()).device
    inputs = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}
    if "use_cache" in inspect.signature(base.forward).parameters:
        inputs["use_cache"] = False
    return inputs


def _backward(model: nn.Module, batch: Batch) -> float:
    inputs = on_device(model, batch)
    loss = partner_loss(model, inputs) if PAIRED in batch else model(**inputs).loss
    if not torch.isfinite(loss):
        raise ActshiftError(
            f"The loss of a batch is {loss.item()}: the model overflows the range of its dtype, or its weights are "
            "damaged; load it in float32, or in bfloat16 where it is in float16."
        )
    if loss.requires_grad:
        loss.backward()
    return loss.item()


def _check(batches: int, targets: int, taps: Sequence[Tap]) -> None:
    if not batches:
        raise ActshiftError("There are no batches; give at least one with input_ids and labels.")
    if not targets:
        raise ActshiftError(
            "The data has no token to predict: a row needs two tokens at least, and a label that is not -100."
        )
    if not any(tap.vector is not None and tap.vector.any() for tap in taps):
        raise ActshiftError(
            "Every gradient is zero: the loss does not depend on these activations, or the model is certain of every "
            "target; give data that it does not know by heart."
        )
