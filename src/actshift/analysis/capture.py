"""What modules take and give in one forward of a model; the model is left as it was."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from actshift.data.encode import sides
from actshift.errors import ActshiftError
from actshift.sites import find_blocks, hidden_of
from actshift.sites.blocks import unwrap
from actshift.tuner import halves

Batch = Mapping[str, Tensor]


@dataclass(frozen=True)
class Call:
    """One call of a module: its arguments, and the hidden states that it returned, behind every other hook."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Tensor


class StopForward(Exception):
    """Ends a forward at the last module that is looked at: no error, the rest is not needed."""


def observe(model: Any, batch: Batch, modules: Sequence[nn.Module], stop: bool = False) -> list[Call]:
    """Call the model and return what each of `modules` took and gave; with `stop`, go no further than the last one.

    Labels are left out, and no cache is kept. Raises ActshiftError for a module that the forward does not call, or
    that returns no hidden states.
    """
    taken: dict[int, tuple[Any, Any]] = {}
    calls: dict[int, Call] = {}

    def before(module: nn.Module, args: Any, kwargs: Any) -> None:
        taken[id(module)] = args, kwargs

    def after(module: nn.Module, args: Any, output: Any) -> None:
        # A copy: Falcon adds one branch to the other in place.
        calls[id(module)] = Call(*taken.pop(id(module)), hidden_states(module, output).clone())
        if stop and module is modules[-1]:
            raise StopForward

    handles = [module.register_forward_pre_hook(before, with_kwargs=True) for module in modules]
    handles += [module.register_forward_hook(after) for module in modules]
    try:
        model(**inputs_of(model, batch))
    except StopForward:
        pass
    finally:
        for handle in handles:
            handle.remove()
    if missing := [type(module).__name__ for module in modules if id(module) not in calls]:
        raise ActshiftError(f"{type(model).__name__} does not call its {missing[0]}, so nothing can be seen there.")
    return [calls[id(module)] for module in modules]


def inputs_of(model: Any, batch: Batch) -> dict[str, Any]:
    """Return what to call the model with: the batch on its device, without labels, and without a cache.

    Of pairs of texts it is the first ones.
    """
    device, first = next(model.parameters()).device, sides(batch)[0]
    inputs: dict[str, Any] = {name: value.to(device) for name, value in first.items() if name != "labels"}
    if "use_cache" in inspect.signature(unwrap(model).forward).parameters:
        inputs["use_cache"] = False
    return inputs


def hidden_states(module: nn.Module, output: Any) -> Tensor:
    """Return the hidden states in what a module returned: a tensor, or a tuple that begins with one."""
    hidden = hidden_of(output)
    if not isinstance(hidden, Tensor):
        raise ActshiftError(f"{type(module).__name__} returns a {type(output).__name__}, which holds no hidden states.")
    return hidden


def unmasked(hidden: Tensor, batch: Batch) -> Tensor:
    """Return the hidden states of the tokens that the attention mask lets through, `[tokens, d]`."""
    flat = hidden.reshape(-1, hidden.shape[-1])
    mask = batch.get("attention_mask")
    return flat if mask is None else flat[mask.to(flat.device).flatten().bool()]


def check_tokens(batches: Sequence[Batch], least: int, what: str) -> None:
    """Raise ActshiftError unless the batches hold so many tokens, over two rows at least."""
    rows = sum(len(batch["input_ids"]) for batch in batches)
    tokens = sum(int(batch.get("attention_mask", torch.ones_like(batch["input_ids"])).sum()) for batch in batches)
    if not rows:
        raise ActshiftError(f"{what} takes text to run the models on, and there are no rows; give some.")
    if tokens < least or rows < 2:
        raise ActshiftError(
            f"{what} takes {least} tokens in 2 rows at least, and there {'is' if tokens == 1 else 'are'} {tokens} in "
            f"{rows}; give more text."
        )


@contextmanager
def inference(*models: nn.Module) -> Iterator[None]:
    """Hold models in evaluation mode, without gradients, and put their former modes back."""
    before = [{name: module.training for name, module in model.named_modules()} for model in models]
    for model in models:
        model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for model, training in zip(models, before, strict=True):
            for name, module in model.named_modules():
                module.training = training.get(name, module.training)


def held_out_rows(batch: Batch, start: int) -> Tensor:
    """Return which tokens are for checking a fit, `[batch, seq]` bool: those of every third row, counted from `start`.

    Whole rows are held out, since the tokens of one text are alike.
    """
    rows = torch.arange(start, start + len(batch["input_ids"])) % 3 == 1
    return rows[:, None].expand(batch["input_ids"].shape)


def split_tokens(batch: Batch, start: int) -> tuple[Batch, Batch]:
    """Return masks of the tokens to fit and of those to check, each as a batch that `real` takes."""
    mask = batch.get("attention_mask", torch.ones_like(batch["input_ids"])).bool()
    held_out = held_out_rows(batch, start)
    return {"attention_mask": mask & ~held_out}, {"attention_mask": mask & held_out}


@torch.no_grad()
def shifts_alone(
    model: Any, batches: Iterable[Mapping[str, Tensor]], tokens: int = 2048
) -> tuple[list[Tensor], list[Tensor]]:
    """Return `h_weights - h_base` and `h_activations - h_base`, each a list with `[tokens, d]` for every block.

    `batches` are what the model is called with; the first `tokens` tokens that no attention mask leaves out are used.
    Float32, on the CPU.

    Raises ActshiftError for a model without a joint adapter, and where `batches` hold no token.

    >>> shifts_alone(model, batches)  # doctest: +SKIP
    """
    first: dict[str, list[list[Tensor]]] = {"weights": [], "activations": []}
    left = tokens
    with _evaluating(model):
        for batch in batches:
            if left <= 0:
                break
            batch = {name: value.to(model.device) for name, value in batch.items()}
            base = _block_outputs(model, batch, model.disable_adapter(), left)
            for half, kept in first.items():
                alone = _block_outputs(model, batch, halves(model, half), left)
                kept.append([one - other for one, other in zip(alone, base, strict=True)])
            left -= len(base[0])
    if left == tokens:
        raise ActshiftError("the redundancy is measured on held-out tokens, and the batches hold none; give some rows.")
    weights, activations = ([torch.cat(block) for block in zip(*kept, strict=True)] for kept in first.values())
    return weights, activations


def _block_outputs(
    model: Any, batch: dict[str, Tensor], state: AbstractContextManager[Any], limit: int
) -> list[Tensor]:
    seen: list[Tensor] = []

    def keep(block: nn.Module, args: Any, output: Any) -> None:
        hidden = hidden_of(output)
        mask = batch.get("attention_mask")
        unmasked = hidden[mask.bool()] if mask is not None and mask.shape == hidden.shape[:2] else hidden.flatten(0, -2)
        seen.append(unmasked[:limit].float().cpu())

    handles = [block.register_forward_hook(keep) for _, block in find_blocks(model)]  # behind the steering hook
    try:
        with state:
            model(**batch)
    finally:
        for handle in handles:
            handle.remove()
    return seen


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
