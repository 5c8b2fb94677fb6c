"""One branch of a block as a function of its weights and of its input."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import grad
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map_only

from actshift.analysis.capture import Call, StopForward, output_hooks
from actshift.errors import ActshiftError, first_line

Weights = Mapping[str, Tensor]

MAX_DENSE_WIDTH = 256  # up to this width A(x) is decomposed; above it, least squares use conjugate gradients
CGLS_STEPS = 200
SINGULAR = 1e-10  # singular values below this fraction of the largest one count as zero


@dataclass(frozen=True)
class Branch:
    """The output of `host` inside one call of `block`, as a function of the block's weights in `names`.

    `names` are relative to the block. All other weights, and the input of the branch, come from the base model. An
    update of the attention therefore does not contribute to the shift of the MLP.
    """

    block: nn.Module
    host: nn.Module
    names: frozenset[str]

    def output(
        self,
        call: Call,
        weights: Weights,
        entry: nn.Module | None = None,
        replace: Callable[[Tensor], Tensor] = lambda x: x,
    ) -> Tensor:
        """Return the host's output `[..., d]` under these weights, with `replace` applied to the input of `entry`."""
        outputs: list[Tensor] = []

        def stop(_: int, host_call: Call) -> None:
            outputs.append(host_call.output)
            raise StopForward

        with ExitStack() as hooks:
            if entry is not None:
                hooks.enter_context(entry.register_forward_pre_hook(lambda _, args: (replace(args[0]), *args[1:])))
            # The fused kernels of the attention have no forward-mode derivative.
            with suppress(StopForward), output_hooks([self.host], stop), sdpa_kernel(SDPBackend.MATH):
                functional_call(self.block, dict(weights), call.args, call.kwargs)
        return outputs[0]

    def updated_output(self, call: Call, weights: Weights, update: Weights, scale: float) -> Tensor:
        """Return the host's output with `scale` times the update added to this branch's weights."""
        return self.output(call, {**weights, **{k: weights[k] + scale * v for k, v in self._own(update).items()}})

    def first_order(self, call: Call, weights: Weights, update: Weights) -> Tensor:
        """Return the derivative of the host's output `[..., d]` along this branch's part of the update.

        For a GLU it is ΔW_d m + W_d [(σ'(a_g) ⊙ a_u) ⊙ (ΔW_g x) + σ(a_g) ⊙ (ΔW_u x)]. Forward-mode differentiation
        computes it exactly for every MLP.

        Raises:
            ActshiftError: The block has an operation without a forward-mode derivative.

        Source: arXiv 2603.00425, eq. 1.
        """
        own = self._own(update)
        if not own:
            return torch.zeros_like(self.output(call, weights))
        base = {name: weights[name] for name in own}
        try:
            return jvp(lambda changed: self.output(call, {**weights, **changed}), (base,), (own,))[1]
        except RuntimeError as error:
            reason = f"has an operation without a forward-mode derivative: {first_line(error)}"
            raise ActshiftError(f"{type(self.block).__name__} {reason}") from error

    def _own(self, update: Weights) -> dict[str, Tensor]:
        return {name: delta for name, delta in update.items() if name in self.names}


def branches_of(
    block: nn.Module, attention: nn.Module | None, mlp: nn.Module | None, call: Call, weights: Weights
) -> dict[str, Branch]:
    """Return the branches "attention" and "mlp" of a block whose hosts are known.

    Weights that are used before the attention returns belong to the attention, including its norms, and all others to
    the MLP. A norm that parallel branches share belongs to the attention.
    """
    names = frozenset(name for name, _ in block.named_parameters())
    used: set[str] = set()
    if attention is not None:
        with ExitStack() as hooks:
            for prefix, module in block.named_modules():
                hooks.enter_context(module.register_forward_pre_hook(lambda *_, prefix=prefix: used.add(prefix)))
            Branch(block, attention, names).output(call, weights)
    before = frozenset(name for name in names if name.rpartition(".")[0] in used)
    hosts = {"attention": (attention, before), "mlp": (mlp, names - before)}
    return {kind: Branch(block, host, own) for kind, (host, own) in hosts.items() if host is not None}


def cast_floating(value: Any, dtype: torch.dtype) -> Any:
    """Return nested arguments or weights with every floating-point tensor in `dtype`."""
    return tree_map_only(Tensor, lambda leaf: leaf.to(dtype) if leaf.is_floating_point() else leaf, value)


def best_input_shift(
    function: Callable[[Tensor], Tensor],
    x: Tensor,
    target: Tensor,
    mask: Tensor | None = None,
    max_dense_width: int = MAX_DENSE_WIDTH,
) -> tuple[Tensor, Tensor]:
    """Return the Δx of least norm that minimises ‖A(x) Δx - target‖ for every token, and A(x) Δx, where A(x) = ∂y/∂x.

    Args:
        function: The token-wise function y of x `[..., d]`.
        target: The desired shift of the output `[..., d]`.
        mask: The tokens to solve for `[...]`, bool; all by default.
        max_dense_width: Width up to which A(x) is computed. Above it, its products come from reverse-mode
            differentiation of all tokens together.

    Source: arXiv 2603.00425, eq. 2; docs/method.md#reachability.

    >>> x = torch.ones(1, 2, dtype=torch.float64)
    >>> best_input_shift(lambda x: x * torch.tensor([1.0, 0.0]), x, torch.tensor([[3.0, 4.0]]).double())[1]
    tensor([[3., 0.]], dtype=torch.float64)
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        y = function(x)
        code = torch.zeros_like(y, requires_grad=True)
        # Aᵀ is linear in the code, so its derivative is A. Unlike `jvp`, that does not run the whole block again.
        [transposed] = grad(y, x, code, create_graph=True)

    def push_forward(direction: Tensor) -> Tensor:
        return grad(transposed, code, direction, retain_graph=True)[0]

    def pull_back(direction: Tensor) -> Tensor:
        return grad(y, x, direction, retain_graph=True)[0]

    if x.shape[-1] <= max_dense_width:
        if mask is None:
            mask = torch.ones(x.shape[:-1], dtype=torch.bool, device=x.device)
        shift = torch.zeros_like(x)
        shift[mask] = _by_decomposition(pull_back, target, mask)
    else:
        shift = _by_conjugate_gradients(push_forward, pull_back, target)
    return shift, push_forward(shift)


def _by_decomposition(pull_back: Callable[[Tensor], Tensor], target: Tensor, mask: Tensor) -> Tensor:
    rows: list[Tensor] = []
    for coordinate in range(target.shape[-1]):
        unit = torch.zeros_like(target)
        unit[..., coordinate] = 1
        rows.append(pull_back(unit)[mask])
    left, values, right = torch.linalg.svd(torch.stack(rows, dim=-2), full_matrices=False)
    kept = values > SINGULAR * values[..., :1].clamp(min=torch.finfo(values.dtype).tiny)
    code = (left.mT @ target[mask][..., None])[..., 0]
    code = torch.where(kept, code / values, torch.zeros_like(code))
    return (right.mT @ code[..., None])[..., 0]


def _by_conjugate_gradients(
    push_forward: Callable[[Tensor], Tensor], pull_back: Callable[[Tensor], Tensor], target: Tensor
) -> Tensor:
    """Solve by CGLS (Björck, 1996), with a separate step length for each token."""
    residual, direction = target, pull_back(target)
    solution, size = torch.zeros_like(direction), _square(direction)
    initial_size = size
    for _ in range(CGLS_STEPS):
        if not (size > 1e-24 * initial_size).any():
            break
        image = push_forward(direction)
        length = _ratio(size, _square(image))
        solution = solution + length * direction
        residual = residual - length * image
        gradient = pull_back(residual)
        size, previous_size = _square(gradient), size
        direction = gradient + _ratio(size, previous_size) * direction
    return solution


def _square(values: Tensor) -> Tensor:
    return values.square().sum(-1, keepdim=True)


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    return torch.where(below > 0, above / below.clamp(min=torch.finfo(below.dtype).tiny), torch.zeros_like(above))
