"""Backward passes that fill taps and leave the model unchanged."""

import inspect
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from actshift.data.encode import IGNORE_INDEX
from actshift.data.pairs import contrastive_loss
from actshift.errors import ActshiftError
from actshift.gradients.taps import OVERFLOW, BatchGroup, Tap
from actshift.sites.blocks import unwrap

Batch = Mapping[str, Any]
OnBatch = Callable[[int], None] | None  # receives the number of finished batches
PAIRED = "pair_input_ids"  # key of a batch of text pairs, whose loss is `contrastive_loss`


@dataclass(frozen=True)
class BackwardStats:
    """The number of targets of each group of batches, the number of batches, and the mean loss in nats per target.

    The weights below turn the sums of the groups into the gradient of a mean loss. They are `[groups]` in float64.
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
        return [self._mean_over(filled - {group}) for group in sorted(filled)] if len(filled) > 1 else []

    def alone(self) -> list[Tensor]:
        """Return the weights for the mean over one group, for each group with targets."""
        return [self._mean_over([group]) for group in sorted(self._filled())]

    def _filled(self) -> set[int]:
        return {group for group, count in enumerate(self.targets) if count}

    def _mean_over(self, groups: Collection[int]) -> Tensor:
        weights = torch.zeros(len(self.targets), dtype=torch.float64)
        weights[list(groups)] = 1 / sum(self.targets[group] for group in groups)
        return weights


def backward(
    model: nn.Module,
    batches: Iterable[Batch],
    taps: Sequence[Tap],
    batch_group: BatchGroup,
    handles: Sequence[RemovableHandle],
    on_batch: OnBatch = None,
) -> BackwardStats:
    """Run one backward pass per batch, and sum the gradients in `taps`.

    Each batch is weighted by its number of targets (labels other than -100), so the taps sum the gradient of the mean
    loss over all targets. Batch i belongs to group i modulo `batch_group.groups`. No parameter receives a gradient.
    The hooks `handles` are removed at the end, also after an error. `on_batch` receives the number of finished batches.

    Raises:
        ActshiftError: The batches have no target, a loss or gradient is not finite, or all gradients are zero.
    """
    targets, total_loss, done = [0] * batch_group.groups, 0.0, 0
    with ExitStack() as hooks, frozen(model), torch.enable_grad():
        for handle in handles:
            hooks.enter_context(handle)
        for batch in batches:
            batch_group.group = done % batch_group.groups
            if count := _count_targets(model, batch):
                batch_group.weight = float(count)
                total_loss += count * _backward(model, batch)
                targets[batch_group.group] += count
                for tap in taps:
                    tap.check()
            done += 1
            if on_batch:
                on_batch(done)
    _check(done, sum(targets), taps)
    return BackwardStats(tuple(targets), done, total_loss / sum(targets))


def _count_targets(model: nn.Module, batch: Batch) -> int:
    """Return the number of labels that the loss of a batch counts; of text pairs, each row has one: its partner."""
    if PAIRED in batch:
        return len(batch[PAIRED])
    if (labels := batch.get("labels")) is None:
        raise ActshiftError("The batches have no labels, so there is no loss; build them with actshift.token_batches.")
    base: Any = unwrap(model)
    decodes = getattr(base, "can_generate", lambda: False)() and not base.config.is_encoder_decoder
    # No token predicts the first label of a decoder.
    return int((torch.as_tensor(labels)[..., int(decodes) :] != IGNORE_INDEX).sum())


def _backward(model: nn.Module, batch: Batch) -> float:
    inputs = model_inputs(model, batch)
    loss = contrastive_loss(model, inputs) if PAIRED in batch else model(**inputs).loss
    if not torch.isfinite(loss):
        raise ActshiftError(f"The loss of a batch is {loss.item()}: {OVERFLOW}.")
    if loss.requires_grad:
        loss.backward()
    return loss.item()


def _check(batches: int, targets: int, taps: Sequence[Tap]) -> None:
    if not batches:
        raise ActshiftError("There are no batches; pass at least one, with input_ids and labels.")
    if not targets:
        raise ActshiftError("The data has no token to predict; give a row with two tokens and a label other than -100.")
    if not any(tap.vector is not None and tap.vector.any() for tap in taps):
        reason = "the loss does not depend on these activations, or the model has memorised the data"
        raise ActshiftError(f"Every gradient is zero: {reason}. Use other data.")


@contextmanager
def restored(items: Iterable[Any], attribute: str) -> Generator[None]:
    """Restore an attribute of each item, such as the mode `training` of modules, at the end."""
    values = [(item, getattr(item, attribute)) for item in items]
    try:
        yield
    finally:
        for item, value in values:
            setattr(item, attribute, value)


@contextmanager
def frozen(model: nn.Module) -> Generator[None]:
    """Turn off dropout and the gradients of all parameters, and restore both at the end."""
    with restored(model.parameters(), "requires_grad"), restored(model.modules(), "training"):
        for module in model.modules():
            # A checkpointed block recomputes its activations only if it is itself in training mode.
            module.training = bool(getattr(module, "gradient_checkpointing", False))
        model.requires_grad_(False)
        yield


def model_inputs(model: nn.Module, batch: Batch) -> dict[str, Any]:
    """Return the arguments of a forward pass: the batch on the model's device, and no KV cache."""
    base: Any = unwrap(model)
    device = next(model.parameters()).device
    inputs = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}
    return inputs | ({"use_cache": False} if "use_cache" in inspect.signature(base.forward).parameters else {})
