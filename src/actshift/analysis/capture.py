"""Capture the activations of modules during a forward pass, and select the tokens to use."""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, chain, count
from typing import Any

import torch
from torch import Tensor, nn

from actshift.data.pairs import split_pair
from actshift.errors import ActshiftError
from actshift.gradients.backward import model_inputs, restored
from actshift.sites import find_blocks, hidden_of, with_hidden
from actshift.sites.architectures import TOKEN_AXES
from actshift.sites.blocks import text_config, unwrap
from actshift.tuner import halves

Batch = Mapping[str, Tensor]
Batches = Sequence[Batch]
ProgressCallback = Callable[[str, int, int], None]  # receives a phase, its finished steps, and their total


@dataclass(frozen=True)
class Call:
    """One call of a module: its arguments, and the hidden states that it returned, after all earlier hooks."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Tensor


class StopForward(Exception):
    """Raised by a hook to end a forward pass after the last module of interest. It is not an error."""


@contextmanager
def output_hooks(modules: Sequence[nn.Module], visit: Callable[[int, Call], Tensor | None]) -> Generator[None]:
    """Call `visit` with the index and each call of `modules`; a tensor that it returns replaces the hidden states."""

    def hook(index: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        changed = visit(index, Call(args, kwargs, hidden_states(module, output)))
        return None if changed is None else with_hidden(output, changed)

    with ExitStack() as hooks:
        for index, module in enumerate(modules):
            hooks.enter_context(module.register_forward_hook(partial(hook, index), with_kwargs=True))
        yield


def capture_calls(model: Any, batch: Batch, modules: Sequence[nn.Module], stop: bool = False) -> list[Call]:
    """Run the model on a batch, without labels and KV cache, and return the call of each of `modules`.

    With `stop`, the forward pass ends after the last of them. Of text pairs only the first texts are run. Raises
    ActshiftError if the forward pass does not call a module, or a module returns no hidden states.
    """
    calls: dict[int, Call] = {}

    def keep(index: int, call: Call) -> None:
        # Falcon adds one branch to the other in place, so the output is copied.
        calls[index] = replace(call, output=call.output.clone())
        if stop and index == len(modules) - 1:
            raise StopForward

    with output_hooks(modules, keep), suppress(StopForward):
        model(**unlabelled_inputs(model, batch))
    if missing := [type(module).__name__ for index, module in enumerate(modules) if index not in calls]:
        raise ActshiftError(f"{type(model).__name__} does not call its {missing[0]}, so it has no activations there.")
    return [calls[index] for index in range(len(modules))]


def unlabelled_inputs(model: Any, batch: Batch) -> dict[str, Any]:
    """Return the arguments of a forward pass without labels and KV cache. Of text pairs, use the first texts."""
    return model_inputs(model, {name: value for name, value in split_pair(batch)[0].items() if name != "labels"})


def hidden_states(module: nn.Module, output: Any) -> Tensor:
    """Return the hidden states of a module's output: a tensor, or the first element of a tuple."""
    hidden = hidden_of(output)
    if not isinstance(hidden, Tensor):
        raise ActshiftError(f"{type(module).__name__} returns a {type(output).__name__} without hidden states.")
    if hidden.ndim > 3:  # several residual streams
        problem = f"{type(module).__name__} returns {list(hidden.shape)}, not one vector for each token"
        raise ActshiftError(f"{problem}; analyse another model.")
    return hidden


@contextmanager
def inference(*models: nn.Module) -> Generator[None]:
    """Run models in evaluation mode and without gradients, and restore their modes at the end.

    Raises ActshiftError for a model whose activations are not `[batch, seq, d]`, as no analysis could find its tokens.
    """
    for model in models:
        if getattr(text_config(unwrap(model)), "model_type", "") in TOKEN_AXES:
            problem = f"The activations of {type(unwrap(model)).__name__} are not of shape [batch, seq, d]"
            raise ActshiftError(f"{problem}, which every analysis needs; analyse another model.")
    with restored(chain.from_iterable(model.modules() for model in models), "training"), torch.no_grad():
        for model in models:
            model.eval()
        yield


def unmasked(hidden: Tensor, batch: Batch) -> Tensor:
    """Return the hidden states of the tokens in the attention mask, `[tokens, d]`.

    Raises ActshiftError if `hidden` does not have one vector for each token of the mask `[batch, seq]`.
    """
    flat = hidden.reshape(-1, hidden.shape[-1])
    mask = batch.get("attention_mask")
    if mask is not None and hidden.shape[:-1] not in (mask.shape, (mask.numel(),)):
        shapes = f"{list(hidden.shape)} for a mask of {list(mask.shape)}"
        raise ActshiftError(f"The activations need one vector for each token, and are {shapes}; analyse another model.")
    return flat if mask is None else flat[mask.to(flat.device).flatten().bool()]


def split_tokens(batch: Batch, start: int) -> tuple[Batch, Batch]:
    """Return the masks of the tokens to fit and of the tokens for validation, each as a batch for `unmasked`.

    Every third row is for validation, counted from `start`, the number of rows before this batch. The split is by rows
    because the tokens of one text are alike.
    """
    mask = token_mask(batch).bool()
    validation = (torch.arange(start, start + len(mask)) % 3 == 1)[:, None]
    return {"attention_mask": mask & ~validation}, {"attention_mask": mask & validation}


def split_batches(batches: Batches) -> list[tuple[Batch, Batch]]:
    """Return the masks of `split_tokens` for each batch, with rows counted over all batches."""
    starts = accumulate((len(batch["input_ids"]) for batch in batches), initial=0)
    return [split_tokens(batch, start) for batch, start in zip(batches, starts, strict=False)]


def token_mask(batch: Batch) -> Tensor:
    """Return the attention mask of a batch, `[batch, seq]`: all ones if it has none."""
    return batch.get("attention_mask", torch.ones_like(batch["input_ids"]))


def require_tokens(batches: Batches, least: int, analysis: str) -> None:
    """Raise ActshiftError unless the batches contain at least `least` tokens in two rows; `analysis` names the use."""
    rows = sum(len(batch["input_ids"]) for batch in batches)
    tokens = sum(int(token_mask(batch).sum()) for batch in batches)
    analysis = analysis[0].upper() + analysis[1:]
    if not rows:
        raise ActshiftError(f"{analysis} runs the models on text, but there are no rows; give at least two.")
    if tokens < least or rows < 2:
        counts = f"there {'is' if tokens == 1 else 'are'} {tokens} in {rows}"
        raise ActshiftError(f"{analysis} needs at least {least} tokens in 2 rows, but {counts}; give more text.")


def progress_counter(callback: ProgressCallback, phase: str, total: int) -> Callable[[], None]:
    """Return a function that reports one more finished step of `phase` each time it is called.

    >>> step = progress_counter(lambda phase, done, total: print(f"{phase}: {done} of {total}"), "Reading", 2)
    >>> step()
    Reading: 1 of 2
    """
    steps = count(1)
    return lambda: callback(phase, next(steps), total)


def model_name(model: Any) -> str:
    """Return the name or path that a model was loaded from, or else its class."""
    return getattr(model.config, "name_or_path", "") or type(model).__name__


def half_shifts(model: Any, batches: Iterable[Batch], tokens: int = 2048) -> tuple[list[Tensor], list[Tensor]]:
    """Return `h_weights - h_base` and `h_activations - h_base`, each as a list with one `[tokens, d]` per block.

    h is a block's output with one half of the active joint adapter switched on. The shifts are float32 tensors on the
    CPU, for the first `tokens` tokens that no attention mask excludes. `batches` are keyword arguments of the model.
    Raises ActshiftError if the model has no joint adapter, or the batches contain no token.
    """
    shifts: list[list[list[Tensor]]] = []
    remaining = tokens
    with inference(model):
        for batch in batches:
            if remaining <= 0:
                break
            states = model.disable_adapter(), halves(model, "weights"), halves(model, "activations")
            base, *steered = (_block_outputs(model, batch, state, remaining) for state in states)
            shifts.append([[h - plain for h, plain in zip(outputs, base, strict=True)] for outputs in steered])
            remaining -= len(base[0])
    if remaining == tokens:
        raise ActshiftError("The redundancy is measured on held-out tokens, but the batches hold none; give some rows.")
    weights, activations = ([torch.cat(h) for h in zip(*half, strict=True)] for half in zip(*shifts, strict=True))
    return weights, activations


def _block_outputs(model: Any, batch: Batch, state: AbstractContextManager[Any], limit: int) -> list[Tensor]:
    outputs: list[Tensor] = []

    def keep(_: int, call: Call) -> None:
        mask = batch.get("attention_mask")
        fits = mask is not None and mask.shape == call.output.shape[:2]  # a decoder has other tokens than its encoder
        outputs.append(unmasked(call.output, batch if fits else {})[:limit].float().cpu())

    with output_hooks([block for _, block in find_blocks(model)], keep), state:
        model(**model_inputs(model, batch))
    return outputs
