"""One branch of a block as a function of its weights, at the input that the block has in the base model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map

from actshift.analysis.capture import Call, Reached, hidden_states
from actshift.errors import ActshiftError, first_line

Weights = Mapping[str, Tensor]
Inject = tuple[nn.Module, Callable[[Tensor], Tensor]]


@dataclass(frozen=True)
class Branch:
    """What `host` returns when `block` is called as it was, as a function of the weights in `names`.

    `names` are relative to the block. The rest of the block keeps the base's weights, so that the input of this branch
    does: an update of the attention is no part of the MLP's shift.
    """

    block: nn.Module
    host: nn.Module
    names: frozenset[str]

    def output(self, call: Call, weights: Weights, inject: Inject | None = None) -> Tensor:
        """Return the host's output `[..., d]` under these weights; `inject` changes what one module takes."""
        seen: list[Tensor] = []

        def stop(module: nn.Module, args: Any, output: Any) -> None:
            seen.append(hidden_states(module, output))
            raise Reached

        handles = [self.host.register_forward_hook(stop)]
        if inject is not None:
            entry, change = inject
            handles.append(entry.register_forward_pre_hook(lambda module, args: (change(args[0]), *args[1:])))
        try:
            with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no forward-mode derivative
                functional_call(self.block, dict(weights), call.args, call.kwargs)
        except Reached:
            pass
        finally:
            for handle in handles:
                handle.remove()
        return seen[0]

    def moved(self, call: Call, weights: Weights, update: Weights, scale: float) -> Tensor:
        """Return the host's output with `scale` times this branch's part of the update added to its weights."""
        return self.output(call, {**weights, **{k: weights[k] + scale * update[k] for k in self.of(update)}})

    def first_order(self, call: Call, weights: Weights, update: Weights) -> Tensor:
        """Return the derivative of the host's output along this branch's part of the update.

        Of a GLU it is ΔW_d m + W_d [(σ'(a_g) ⊙ a_u) ⊙ (ΔW_g x) + σ(a_g) ⊙ (ΔW_u x)], taken by forward-mode
        differentiation, so that it is as exact for every other MLP. Source: arXiv 2603.00425, eq. 1.
        """
        own = self.of(update)
        if not own:
            return torch.zeros_like(self.output(call, weights))
        try:
            shift: Any = jvp(
                lambda moving: self.output(call, {**weights, **moving}),
                ({name: weights[name] for name in own},),
                ({name: update[name] for name in own},),
            )[1]
        except RuntimeError as error:
            raise ActshiftError(
                f"{type(self.block).__name__} has an operation that torch cannot differentiate forwards, so its first "
                f"order is not known: {first_line(error)}"
            ) from error
        return shift

    def of(self, update: Weights) -> list[str]:
        """Return the names of this branch's weights that the update changes."""
        return [name for name in update if name in self.names]


def branches_of(
    block: nn.Module, attention: nn.Module | None, mlp: nn.Module | None, call: Call, weights: Weights
) -> dict[str, Branch]:
    """Return the `attention` and the `mlp` branch of a block, of those whose host is given.

    The weights that have been used when the attention's output is there are the attention's (its norms too), and the
    rest of the block's are the MLP's. A norm that parallel branches share counts with the attention.
    """
    names = frozenset(name for name, _ in block.named_parameters())
    before = frozenset[str]()
    if attention is not None:
        probe, used = Branch(block, attention, names), set[str]()
        handles = [
            module.register_forward_pre_hook(lambda module, args, prefix=prefix: used.add(prefix))
            for prefix, module in block.named_modules()
        ]
        try:
            probe.output(call, weights)
        finally:
            for handle in handles:
                handle.remove()
        before = frozenset(name for name in names if name.rpartition(".")[0] in used)
    found = {"attention": (attention, before), "mlp": (mlp, names - before)}
    return {kind: Branch(block, host, own) for kind, (host, own) in found.items() if host is not None}


def widened(value: Any, dtype: torch.dtype) -> Any:
    """Return the same arguments or weights with every floating tensor in `dtype`."""
    return tree_map(lambda one: one.to(dtype) if isinstance(one, Tensor) and one.is_floating_point() else one, value)
