"""Run-time state that belongs to one thread or async task, so that calls on one model do not disturb each other."""

import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

import torch

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


def replay(owner: Any, state: Any) -> Callable[[Any], None]:
    """Return a tensor hook that gives `state` to `owner` in the backward pass that reaches the tensor."""

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
