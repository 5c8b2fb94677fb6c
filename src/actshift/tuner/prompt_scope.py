"""Who is prompt and who is generated, for adapters that steer not every token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from actshift.errors import ActshiftError
from actshift.sites import Positions
from actshift.tuner.controls import steering_layers
from actshift.tuner.forward_inputs import ForwardInputs, GeneratePrompt, Tokens, forget_generate, note_generate

SCOPE = "_actshift_prompts"  # where a module that is hooked keeps its scope
F = TypeVar("F", bound=Callable[..., Any])


def _eager(function: F) -> F:
    return cast(F, torch.compiler.disable(function))  # what runs now is no constant that may be compiled in


class PromptScope:
    """What the layers of one stack of blocks know of the tokens that they see.

    The last forward is kept until the next, since checkpointed blocks run once more during the backward pass.
    """

    def __init__(self, generative: bool, encoder: bool) -> None:
        self.generative, self.encoder = generative, encoder
        self.generate: GeneratePrompt | None = None  # what the running `generate` was called with
        self.lengths: Tensor | None = None  # what `prompt_lengths` says
        self.inputs: ForwardInputs | None = None
        self.tokens: Tokens | None = None
        self.running = False
        self.handles: list[Any] = []

    @_eager
    def mask_for(self, positions: Positions, x: Tensor) -> Tensor:
        """Return which tokens of `x [batch, seq, d]` (or `[batch * seq, d]`) are steered, `[..., 1]` bool.

        Raises ActshiftError where it cannot be told which tokens are the prompt.
        """
        if not self.running and not in_backward():
            raise ActshiftError(
                f"which tokens are the prompt is not known, as the blocks run outside of a call of the whole model; "
                f"call the model that was adapted, or steer at Positions.all() instead of at the {positions}."
            )
        if self.tokens is None:
            assert self.inputs is not None
            self.tokens = self.inputs.tokens(x)
        return self.tokens.mask(positions, x)


class GeneratedScope:
    """The decoder of an encoder-decoder: all that it sees is generated."""

    def mask_for(self, positions: Positions, x: Tensor) -> Tensor:
        """Return a mask `[..., 1]` bool for `x [..., d]`, all True or all False."""
        return torch.full((*x.shape[:-1], 1), positions.where in ("all", "generated"), device=x.device)


def install(root: nn.Module) -> None:
    """Give every steering layer of `root` a scope as its `prompts`, and hook on to what `root` is called with.

    `root` is the model that a user calls, without its PEFT wrapper. May be called again after more layers came.
    """
    layers = steering_layers(root).values()
    config = getattr(root, "config", None)
    if getattr(config, "is_encoder_decoder", False) and hasattr(root, "get_encoder"):
        encoder: nn.Module = root.get_encoder()  # type: ignore[operator]
        scope, inside = _hooked(encoder, encoder=True), {id(module) for module in encoder.modules()}
        decoder = GeneratedScope()
        for layer in layers:
            layer.prompts = scope if id(layer) in inside else decoder
        return
    can_generate: Any = getattr(root, "can_generate", lambda: False)
    scope = _hooked(root, generative=bool(can_generate()))
    if scope.generative:
        note_generate(root, scope)
    for layer in layers:
        layer.prompts = scope


def remove(root: nn.Module) -> None:
    """Undo `install`."""
    for module in root.modules():
        scope = module.__dict__.pop(SCOPE, None)
        if scope is not None:
            forget_generate(module)
            for handle in scope.handles:
                handle.remove()
    for layer in steering_layers(root).values():
        layer.prompts = None


@contextmanager
def prompt_lengths(model: nn.Module, lengths: Sequence[int] | Tensor) -> Iterator[None]:
    """Say how many tokens of each row are the prompt, for forwards over prompt and completion without labels.

    That is what a loss of one's own on the logits needs. `lengths [batch]` counts the attended tokens, in a row with
    a KV cache from its very start. Adapters that steer every token ignore it, and so do encoder-decoders.

    Raises ActshiftError for a model without steering, and for lengths that are no whole numbers from 0 up.

    >>> from actshift import SteeringConfig, attach
    >>> from actshift.demo import load_base
    >>> from actshift.sites import Positions
    >>> model = attach(load_base()[0], SteeringConfig(rank=2, positions=Positions.prompt()))
    >>> with prompt_lengths(model, [2, 3]):
    ...     logits = model(torch.tensor([[5, 6, 7, 8], [5, 6, 7, 8]])).logits
    """
    layers = steering_layers(model).values()
    if not layers:
        raise ActshiftError(f"{type(model).__name__} carries no steering adapter; attach or load one first.")
    given = torch.as_tensor(lengths)
    if given.ndim != 1 or given.is_floating_point() or given.dtype == torch.bool or bool((given < 0).any()):
        raise ActshiftError(
            f"lengths must be one whole number from 0 up for each row, such as [5, 7], got {lengths!r}."
        )
    known = {id(layer.prompts): layer.prompts for layer in layers}.values()
    scopes = [scope for scope in known if isinstance(scope, PromptScope) and not scope.encoder]
    before = [scope.lengths for scope in scopes]
    for scope in scopes:
        scope.lengths = given
    try:
        yield
    finally:
        for scope, former in zip(scopes, before, strict=True):
            scope.lengths = former


@_eager
def begin_forward(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Forward pre-hook: note what the model is called with; nothing is computed unless a layer asks."""
    scope: PromptScope = module.__dict__[SCOPE]
    if getattr(module, "_is_replica", False):
        raise ActshiftError(
            "positions do not work under torch.nn.DataParallel, whose threads share what is known of the prompt; run "
            "one process a GPU (accelerate launch), or make one visible (CUDA_VISIBLE_DEVICES=0)."
        )
    scope.inputs = ForwardInputs.of(
        module, args, kwargs, generative=scope.generative, lengths=scope.lengths, generate=scope.generate
    )
    scope.tokens, scope.running = None, True


@_eager
def end_forward(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
    """Forward hook: let the inputs go, and have the backward pass of this forward find its own tokens."""
    scope: PromptScope = module.__dict__[SCOPE]
    scope.inputs, scope.running = None, False
    if module.training and torch.is_grad_enabled():
        for tensor in _tensors(output):
            if tensor.requires_grad and tensor.grad_fn is not None:
                tensor.register_hook(_Resume(scope, scope.tokens))


class _Resume:
    def __init__(self, scope: PromptScope, tokens: Tokens | None) -> None:
        self.scope, self.tokens = scope, tokens

    def __call__(self, gradient: Tensor) -> None:
        self.scope.tokens = self.tokens


def in_backward() -> bool:
    """Whether autograd's engine runs this code, which is how checkpointed blocks are computed again."""
    return torch._C._current_graph_task_id() != -1


def _hooked(module: nn.Module, generative: bool = False, encoder: bool = False) -> PromptScope:
    scope = module.__dict__.get(SCOPE)
    if scope is None:
        scope = PromptScope(generative, encoder)
        setattr(module, SCOPE, scope)
        scope.handles.append(module.register_forward_pre_hook(begin_forward, with_kwargs=True))
        scope.handles.append(module.register_forward_hook(end_forward, always_call=True))
    return scope


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, dict | list | tuple):
        for value in output.values() if isinstance(output, dict) else output:
            yield from _tensors(value)
