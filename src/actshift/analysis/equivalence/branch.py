"""One branch of a block as a function of its weights, at the input that the block has in the base model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp, vjp
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map

from actshift.analysis.capture import Call, StopForward, hidden_states
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
            raise StopForward

        handles = [self.host.register_forward_hook(stop)]
        if inject is not None:
            entry, change = inject
            handles.append(entry.register_forward_pre_hook(lambda module, args: (change(args[0]), *args[1:])))
        try:
            with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no forward-mode derivative
                functional_call(self.block, dict(weights), call.args, call.kwargs)
        except StopForward:
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


FORMED = 256
"""Up to this width A(x) is formed and decomposed; above it, least squares are solved by conjugate gradients."""
STEPS = 200
SINGULAR = 1e-10
"""Singular values below this share of the largest count as zero."""


@dataclass(frozen=True)
class Copy:
    """The best shift of x, `moved`, of least norm, and what it gives of y to first order, `copied`; `[..., d]` both."""

    moved: Tensor
    copied: Tensor


def reach(
    function: Callable[[Tensor], Tensor], x: Tensor, shift: Tensor, chosen: Tensor | None = None, formed: int = FORMED
) -> Copy:
    """Solve min ‖A(x) Δx - shift‖ for every token, with A(x) = ∂y/∂x of the token-wise `function`.

    `x` and `shift` are `[..., d]`, and `chosen` `[...]` bool tells which tokens are asked about. Above
    the width `formed` no A is formed: its products and those of Aᵀ come from forward- and reverse-mode
    differentiation, all tokens at once.
    Source: arXiv 2603.00425, eq. 2 and what follows it.

    >>> x = torch.ones(1, 2, dtype=torch.float64)
    >>> reach(lambda x: x * torch.tensor([1.0, 0.0]), x, torch.tensor([[3.0, 4.0]]).double()).copied
    tensor([[3., 0.]], dtype=torch.float64)
    """
    pull = vjp(function, x)[1]

    def forwards(direction: Tensor) -> Tensor:
        return jvp(function, (x,), (direction,))[1]

    def backwards(direction: Tensor) -> Tensor:
        return pull(direction, retain_graph=True)[0]

    if chosen is None:
        chosen = torch.ones(x.shape[:-1], dtype=torch.bool, device=x.device)
    if x.shape[-1] <= formed:
        moved = torch.zeros_like(x)
        moved[chosen] = _by_decomposition(backwards, shift, chosen)
    else:
        moved = _by_conjugate_gradients(forwards, backwards, shift)
    return Copy(moved, forwards(moved))


def _by_decomposition(backwards: Callable[[Tensor], Tensor], shift: Tensor, chosen: Tensor) -> Tensor:
    rows = []
    for coordinate in range(shift.shape[-1]):
        unit = torch.zeros_like(shift)
        unit[..., coordinate] = 1
        rows.append(backwards(unit)[chosen])
    matrix = torch.stack(rows, dim=-2)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    kept = values > SINGULAR * values[..., :1].clamp(min=torch.finfo(values.dtype).tiny)
    code = (left.mT @ shift[chosen][..., None])[..., 0]
    code = torch.where(kept, code / values, torch.zeros_like(code))
    return (right.mT @ code[..., None])[..., 0]


def _by_conjugate_gradients(
    forwards: Callable[[Tensor], Tensor], backwards: Callable[[Tensor], Tensor], shift: Tensor
) -> Tensor:
    """CGLS (Björck, 1996), with a step length of its own for each token."""
    residual = shift.clone()
    gradient = backwards(residual)
    moved = torch.zeros_like(gradient)
    direction, size = gradient.clone(), _square(gradient)
    first = size.clone()
    for _ in range(STEPS):
        if not (size > 1e-24 * first).any():
            break
        image = forwards(direction)
        length = _ratio(size, _square(image))
        moved = moved + length * direction
        residual = residual - length * image
        gradient = backwards(residual)
        size, before = _square(gradient), size
        direction = gradient + _ratio(size, before) * direction
    return moved


def _square(values: Tensor) -> Tensor:
    return values.square().sum(-1, keepdim=True)


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    return torch.where(below > 0, above / below.clamp(min=torch.finfo(below.dtype).tiny), torch.zeros_like(above))
