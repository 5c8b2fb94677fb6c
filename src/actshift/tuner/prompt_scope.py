"""Track which tokens belong to the prompt and which were generated, for adapters that steer only some tokens."""

import inspect
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import Tensor, nn

from actshift.errors import ActshiftError
from actshift.sites import Positions
from actshift.sites.blocks import encoder_and_decoder
from actshift.tuner.forward_inputs import ForwardInputs, GeneratePrompt, TokenPositions, unknown_prompt
from actshift.tuner.layer import steering_layers
from actshift.tuner.run_state import backward_pass, replay_after, replayed

SCOPE = "_actshift_prompts"  # attribute in which a hooked module keeps its scope
_eager: Any = torch.compiler.disable  # for values that change with each call and must not be compiled in


@dataclass
class Forward:
    """A forward pass: its inputs while it runs, and the positions of its tokens once a layer has asked for them."""

    inputs: ForwardInputs
    tokens: TokenPositions | None = None


# The state of each scope in this thread or async task.
_forward: ContextVar[Mapping["PromptScope", Forward]] = ContextVar("actshift_forward", default=MappingProxyType({}))
_generate: ContextVar[Mapping["PromptScope", GeneratePrompt]] = ContextVar(
    "actshift_generate", default=MappingProxyType({})
)
_lengths: ContextVar[Mapping["PromptScope", Tensor]] = ContextVar("actshift_lengths", default=MappingProxyType({}))


class PromptScope:
    """Tells the steering layers of a model, or of an encoder, which tokens are prompt in the running forward pass.

    Threads and async tasks may run forward passes of one model together: each has its own state.
    """

    def __init__(self, generative: bool, encoder: bool) -> None:
        self.generative, self.encoder = generative, encoder
        self.handles = list[Any]()

    @_eager
    def mask_for(self, positions: Positions, x: Tensor, layer: Any) -> Tensor:
        """Return a bool mask of the steered tokens of `x`, the activations of a layer, which broadcasts to `x`.

        Raises:
            ActshiftError: if the prompt is unknown.
        """
        tokens: TokenPositions | None = replayed.get(backward_pass(), {}).get(self)
        if tokens is None:
            if (forward := _forward.get().get(self)) is None:
                raise unknown_prompt("the blocks run outside of a call of the whole model", "Call the adapted model")
            tokens = forward.tokens = forward.tokens or forward.inputs.tokens(x, layer)
        return tokens.mask(positions, x, layer)


class GeneratedScope:
    """Scope of the decoder in an encoder-decoder model: every token is generated."""

    def mask_for(self, positions: Positions, x: Tensor, layer: Any) -> Tensor:
        """Return a bool mask `[..., 1]` for `x [..., d]`, all True or all False."""
        return torch.full((*x.shape[:-1], 1), positions.where in ("all", "generated"), device=x.device)


def check_halves(root: nn.Module) -> None:
    """Raise ActshiftError if positions do not work with a model, because its encoder and decoder are unknown."""
    generates = bool(getattr(root, "can_generate", lambda: False)())
    encodes = getattr(getattr(root, "config", None), "is_encoder_decoder", False)
    if generates and encodes and encoder_and_decoder(root) is None:
        problem = f"get_encoder() and get_decoder() of {type(root).__name__} do not return the halves of the model"
        raise unknown_prompt(problem, "Implement them")


def install_prompt_scopes(root: nn.Module) -> None:
    """Give every steering layer of `root` a scope as its `prompts`, and hook the calls of `root` that update it.

    `root` is the model that a user calls, without its PEFT wrapper. Call again after adding layers.
    """
    layers = steering_layers(root).values()
    if (halves := encoder_and_decoder(root)) is not None:
        scope, generated = _scope_of(halves[0], encoder=True), GeneratedScope()
        prompt_layers = set(steering_layers(halves[0]).values())
    else:
        can_generate: Any = getattr(root, "can_generate", lambda: False)
        scope, generated, prompt_layers = _scope_of(root, generative=bool(can_generate())), None, set(layers)
        if scope.generative:
            patch_generate(root, scope)
    for layer in layers:
        layer.prompts = scope if layer in prompt_layers else generated


def remove_prompt_scopes(root: nn.Module) -> None:
    """Undo `install_prompt_scopes`."""
    for module in cast(Any, root).modules():
        if (scope := module.__dict__.pop(SCOPE, None)) is None:
            continue
        for handle in scope.handles:
            handle.remove()
        if _is_patched(generate := module.__dict__.get("generate")):
            del module.generate
            if (original := generate.args[2]) is not None:
                module.generate = original
    for layer in steering_layers(root).values():
        layer.prompts = None


@contextmanager
def prompt_lengths(model: nn.Module, lengths: Sequence[int] | Tensor) -> Generator[None]:
    """Set the prompt length of each row, for forward passes over prompt and completion without labels.

    A custom loss on the logits needs this. Adapters that steer every token ignore it, and so do encoder-decoders. Other
    threads and async tasks are not affected.
    `lengths [batch]` are the numbers of attended prompt tokens. With a KV cache, count from the start of the row.

    Raises:
        ActshiftError: for a model without steering, or lengths that are not whole numbers from 0 up.

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
    counts = torch.as_tensor(lengths)
    if counts.ndim != 1 or counts.is_floating_point() or counts.dtype == torch.bool or bool((counts < 0).any()):
        raise ActshiftError(f"lengths must be a whole number from 0 up for each row, such as [5, 7], got {lengths!r}.")
    scopes = {layer.prompts for layer in layers if isinstance(layer.prompts, PromptScope)}
    previous = _lengths.get()
    _lengths.set({**previous, **dict.fromkeys([scope for scope in scopes if not scope.encoder], counts)})
    try:
        yield
    finally:
        _lengths.set(previous)


@_eager
def begin_forward(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Forward pre-hook: store the model's inputs. Nothing is computed until a layer asks for a mask."""
    scope: PromptScope = module.__dict__[SCOPE]
    if getattr(module, "_is_replica", False):
        fix = "run one process for each GPU (accelerate launch), or make one GPU visible (CUDA_VISIBLE_DEVICES=0)"
        raise ActshiftError(f"Positions do not work with torch.nn.DataParallel, which splits the batch; {fix}.")
    kwargs = named_arguments(module, args, kwargs)
    trains = scope.generative and module.training and torch.is_grad_enabled()
    lengths, prompt = _lengths.get().get(scope), _generate.get().get(scope)
    _forward.set({**_forward.get(), scope: Forward(ForwardInputs(kwargs, scope.generative, trains, lengths, prompt))})


@_eager
def end_forward(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
    """Forward hook: forget the inputs, and make the backward pass restore the tokens of this forward pass."""
    scope: PromptScope = module.__dict__[SCOPE]
    forwards = dict(_forward.get())
    forward = forwards.pop(scope, None)
    _forward.set(forwards)
    if forward and forward.tokens and module.training:
        replay_after(output, scope, forward.tokens)


def named_arguments(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a module's `forward` by name."""
    if not args:
        return kwargs
    return dict(zip(inspect.signature(module.forward).parameters, args, strict=False)) | kwargs


def _scope_of(module: nn.Module, generative: bool = False, encoder: bool = False) -> PromptScope:
    """Return the scope of a module; create it and register the hooks on the first call."""
    if (scope := module.__dict__.get(SCOPE)) is None:
        scope = PromptScope(generative, encoder)
        setattr(module, SCOPE, scope)
        scope.handles.append(module.register_forward_pre_hook(begin_forward, with_kwargs=True))
        scope.handles.append(module.register_forward_hook(end_forward, always_call=True))
    return scope


def patch_generate(root: Any, scope: PromptScope) -> None:
    """Replace `generate` of this instance, for all its callers, with one that stores its prompt while it runs."""
    own = root.__dict__.get("generate")
    if not _is_patched(own):  # a partial, because a closure breaks pickle and a bound method breaks deepcopy
        root.generate = partial(_generate_with_prompt, root, scope, own)


def _is_patched(generate: Any) -> bool:
    return getattr(generate, "func", None) is _generate_with_prompt


def _generate_with_prompt(
    root: Any, scope: PromptScope, original: Any, inputs: Any = None, *args: Any, **kwargs: Any
) -> Any:
    generate, previous = original or partial(type(root).generate, root), _generate.get()
    if scope in previous:  # in assisted generation the model drafts its own candidates with `generate`
        return generate(inputs, *args, **kwargs)
    ids = inputs if inputs is not None else kwargs.get("input_ids")
    mask = kwargs.get("attention_mask")
    if mask is None and (mask := _default_mask(root, ids, args, kwargs)) is not None and not bool(mask.all()):
        kwargs["attention_mask"] = mask
    if mask is None:
        mask = torch.ones((1, 1) if (embeds := kwargs.get("inputs_embeds")) is None else embeds.shape[:2])
    _generate.set({**previous, scope: GeneratePrompt(mask != 0, ids)})
    try:
        return generate(inputs, *args, **kwargs)
    finally:
        _generate.set(previous)


def _default_mask(root: Any, ids: Tensor | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """Return the default attention mask of transformers: it excludes padding tokens that are not end-of-text tokens."""
    if ids is None or ids.shape[1] == 0:
        return None
    config = kwargs.get("generation_config") or (args[0] if args else None)

    def setting(name: str) -> Any:
        values = (kwargs.get(name), getattr(config, name, None), getattr(root.generation_config, name, None))
        return next((value for value in values if value is not None), None)

    pad, end = setting("pad_token_id"), setting("eos_token_id")
    ends = torch.as_tensor(end).flatten().tolist() if end is not None else []
    return torch.ones_like(ids) if pad is None or pad in ends else (ids != pad).long()
