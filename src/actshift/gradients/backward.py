"""Backward passes that fill taps and leave the model unchanged."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from actshift.data.encode import IGNORED
from actshift.data.pairs import partner_loss
from actshift.errors import ActshiftError
from actshift.gradients.taps import BatchGroup, Tap
from actshift.sites.blocks import unwrap

Batch = Mapping[str, Any]
PAIRED = "pair_input_ids"
"""Key of a batch of text pairs, whose loss is `partner_loss`."""


@dataclass(frozen=True)
class BackwardStats:
    """Statistics of a run of backward passes.

    `targets` counts the targets of each group of batches `[groups]`, `batches` the batches, and `loss` is the mean
    loss in nats per target. The weights below turn the sums of the groups into the gradient of a mean loss; they have
    shape `[groups]` and dtype float64.
    """

    targets: tuple[int, ...]
    batches: int
    loss: float

    @property
    def shares(self) -> Tensor:
        """The weights for the mean over all targets."""
        return self._mean_over(range(len(self.targets)))

    def without(self) -> list[Tensor]:
        """Return the weights that leave one group out, for each group with targets; none for a single group."""
        filled = self._filled()
        return [self._mean_over(set(filled) - {group}) for group in filled] if len(filled) > 1 else []

    def alone(self) -> list[Tensor]:
        """Return the weights for the mean over one group, for each group with targets."""
        return [self._mean_over([group]) for group in self._filled()]

    def _filled(self) -> list[int]:
        return [group for group, count in enumerate(self.targets) if count]

    def _mean_over(self, groups: Iterable[int]) -> Tensor:
        chosen = list(groups)
        weights = torch.zeros(len(self.targets), dtype=torch.float64)
        weights[chosen] = 1 / sum(self.targets[group] for group in chosen)
        return weights


def backward(
    model: nn.Module,
    batches: Iterable[Batch],
    taps: Sequence[Tap],
    batch_group: BatchGroup,
    handles: Sequence[RemovableHandle],
    on_batch: Callable[[int], None] | None = None,
) -> BackwardStats:
    """Run one backward pass per batch, and sum the gradients in `taps`.

    Each batch is weighted by its number of targets (labels other than -100), so the taps sum the gradient of the mean
    loss over all targets. Batch i belongs to group i modulo `batch_group.groups`. No parameter receives a gradient.

    Args:
        handles: The hooks of the taps. They are removed at the end, also after an error.
        on_batch: Called with the number of batches that are done.

    Raises:
        ActshiftError: The batches have no target, a loss or gradient is not finite, or all gradients are zero.
    """
    targets, total_loss, done = [0] * batch_group.groups, 0.0, 0
    try:
        with frozen(model), torch.enable_grad():
            for batch in batches:
                batch_group.group = done % batch_group.groups
                count = count_targets(model, batch)
                if count:
                    batch_group.weight = float(count)
                    total_loss += count * _backward(model, batch)
                    targets[batch_group.group] += count
                    for tap in taps:
                        tap.check()
                done += 1
                if on_batch:
                    on_batch(done)
    finally:
        for handle in handles:
            handle.remove()
    _check(done, sum(targets), taps)
    return BackwardStats(tuple(targets), done, total_loss / sum(targets))


def count_targets(model: nn.Module, batch: Batch) -> int:
    """Return the number of labels that the loss of a batch counts.

    The first label of a decoder is not counted, because no token predicts it. In a batch of text pairs every row is
    one target: the row's partner.

    Raises:
        ActshiftError: The batch has no labels.
    """
    if PAIRED in batch:
        return len(batch[PAIRED])
    labels = batch.get("labels")
    if labels is None:
        raise ActshiftError(
            "The batches have no labels, so there is no loss. Add labels, with -100 for tokens that are not targets, "
            "or build the batches with actshift.token_batches."
        )
    base: Any = unwrap(model)
    decodes = getattr(base, "can_generate", lambda: False)()
    shifted = decodes and not base.config.is_encoder_decoder
    labels = torch.as_tensor(labels)
    return int(((labels[..., 1:] if shifted else labels) != IGNORED).sum())


@contextmanager
def restored_modes(*models: nn.Module) -> Generator[None]:
    """Restore the training mode of every module at the end."""
    modes = [(module, module.training) for model in models for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def frozen(model: nn.Module) -> Generator[None]:
    """Turn off dropout and the gradients of all parameters, and restore both at the end.

    A checkpointed block recomputes its activations only in training mode. The block itself is therefore set to training
    mode, but not its submodules.
    """
    gradients = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    with restored_modes(model):
        try:
            for module in model.modules():
                module.training = bool(getattr(module, "gradient_checkpointing", False))
            for parameter, _ in gradients:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter, requires_grad in gradients:
                parameter.requires_grad_(requires_grad)


def model_inputs(model: nn.Module, batch: Batch) -> dict[str, Any]:
    """Return the arguments of a forward pass: the batch on the model's device, and no KV cache."""
    base: Any = unwrap(model)
    device = next(model.parameters()).device
    inputs = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}
    if "use_cache" in inspect.signature(base.forward).parameters:
        inputs["use_cache"] = False
    return inputs


def _backward(model: nn.Module, batch: Batch) -> float:
    inputs = model_inputs(model, batch)
    loss = partner_loss(model, inputs) if PAIRED in batch else model(**inputs).loss
    if not torch.isfinite(loss):
        raise ActshiftError(
            f"The loss of a batch is {loss.item()}: the model overflows the range of its dtype, or its weights are "
            "damaged; load it in float32 or bfloat16."
        )
    if loss.requires_grad:
        loss.backward()
    return loss.item()


def _check(batches: int, targets: int, taps: Sequence[Tap]) -> None:
    if not batches:
        raise ActshiftError("There are no batches; pass at least one, with input_ids and labels.")
    if not targets:
        raise ActshiftError(
            "The data has no token to predict; a row needs at least two tokens and one label other than -100."
        )
    if not any(tap.vector is not None and tap.vector.any() for tap in taps):
        raise ActshiftError(
            "Every gradient is zero: the loss does not depend on these activations, or the model already predicts "
            "every target with certainty. Use data that the model has not memorised."
        )
