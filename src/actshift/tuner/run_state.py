"""Run-time state of one thread or async task. Calls on one model in different threads do not share it."""

import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

Strengths = Mapping[str, float]  # of adapters by name


@dataclass(frozen=True)
class Overrides:
    """What steering layers do differently in this context: their strengths, and their adapters for each row."""

    strengths: Mapping[Any, Strengths] = field(default_factory=dict[Any, Strengths])
    rows: Any = None  # the RowCall of a call with `adapter_names`


_overrides: ContextVar[Overrides | None] = ContextVar("actshift_overrides", default=None)
_read_eagerly: Any = torch.compiler.disable(_overrides.get)  # torch.compile cannot trace context variables
_lock = threading.Lock()
_contexts = 0
in_use = False  # True while any context has overrides: reading this costs a layer less than the context variable

_STRENGTHS = "strengths"  # the owner of all strengths in `replayed`
replayed: dict[int, dict[Any, Any]] = {}
"""State of the forward pass that a running backward pass repeats, by backward pass and by owner of the state.

Autograd may repeat checkpointed blocks in other threads, which do not have the context of the forward pass.
"""


def overrides() -> Overrides | None:
    """Return the overrides of this context, or None."""
    return _read_eagerly() if torch.compiler.is_compiling() else _overrides.get()


@contextmanager
def override(**changes: Any) -> Generator[None]:
    """Change fields of the overrides in this thread or async task, until the block ends."""
    previous = _overrides.get()
    _count_contexts(1)
    _overrides.set(replace(previous or Overrides(), **changes))
    try:
        yield
    finally:
        _overrides.set(previous)
        _count_contexts(-1)


def replay_strengths(module: nn.Module, args: Any, output: Any) -> None:
    """Forward hook of a model in training: a backward pass repeats its blocks with the strengths of this context."""
    if (own := overrides()) and own.strengths:
        replay_after(output, _STRENGTHS, own.strengths)


def replayed_strengths() -> Mapping[Any, Strengths] | None:
    """Return the strengths of the forward pass that the backward pass in this thread repeats, or None."""
    return replayed.get(backward_pass(), {}).get(_STRENGTHS)


def replay_after(output: Any, owner: Any, state: Any) -> None:
    """Store `state` for `owner` in every backward pass that starts at the outputs of a forward pass."""
    for tensor in _tensors_in(output) if torch.is_grad_enabled() else ():
        if tensor.requires_grad and tensor.grad_fn is not None:
            tensor.register_hook(_replay(owner, state))


def _tensors_in(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, dict | list | tuple):
        for value in output.values() if isinstance(output, dict) else output:
            yield from _tensors_in(value)


def _replay(owner: Any, state: Any) -> Callable[[Any], None]:
    """Return a tensor hook that stores `state` for `owner`, under the number of the backward pass."""

    def hook(_: Any) -> None:
        backward = backward_pass()
        if backward not in replayed:
            replayed[backward] = {}
            engine: Any = torch.autograd.Variable._execution_engine  # pyright: ignore[reportPrivateUsage]  as in FSDP
            engine.queue_callback(lambda: replayed.pop(backward, None))
        replayed[backward][owner] = state

    return hook


def backward_pass() -> int:
    """Return the number of the backward pass that runs in this thread, or -1."""
    return torch._C._current_graph_task_id()  # pyright: ignore[reportPrivateUsage]  no public test


def _count_contexts(change: int) -> None:
    global _contexts, in_use
    with _lock:
        _contexts += change
        in_use = _contexts > 0
