"""The low-rank adapter of the paper: a linear or nonlinear low-rank map of the activation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from actshift.adapters.base import RankAdapter, Shift
from actshift.adapters.functional import ACTIVATIONS, Factors, has_hooks
from actshift.errors import ActshiftError, check_choice, show

Activation = Literal["silu", "gelu", "relu", "tanh"]
Init = Literal["default", "reference", "gradient"]


class LowRankShift(Shift):
    """Δ(x) = W_up φ(W_down x + b_down) + b_up, with W_up and both biases starting at zero."""

    def __init__(self, adapter: LowRank, width: int, heads: int | None) -> None:
        super().__init__()
        self.activation = adapter.activation
        self.down = nn.Linear(width, adapter.rank, bias=adapter.bias)
        self.up = nn.Linear(adapter.rank, width, bias=adapter.bias)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.up.weight)
        if adapter.bias:
            nn.init.zeros_(self.down.bias)
            nn.init.zeros_(self.up.bias)
        if adapter.init == "reference":
            with torch.no_grad():
                self.down.weight.mul_(1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x [..., d]` to the shift `[..., d]`."""
        return self.up(ACTIVATIONS[self.activation](self.down(x)))

    def factors(self) -> Factors | None:
        """Return both maps, or None if a module has hooks or a weight is not a plain parameter (parametrised)."""
        # Skip nn.Module's attribute lookup: in decoding it takes longer than the matrix products.
        down, up = self._modules["down"], self._modules["up"]
        assert down is not None and up is not None
        down_parameters, up_parameters = down._parameters, up._parameters
        down_weight, up_weight = down_parameters.get("weight"), up_parameters.get("weight")
        if down_weight is None or up_weight is None or has_hooks(self, down, up):
            return None
        return Factors(down_weight, up_weight, self.activation, down_parameters["bias"], up_parameters["bias"])

    def reads(self) -> list[Tensor]:
        """Return W_down."""
        return [self.down.weight]

    def writes(self) -> list[Tensor]:
        """Return W_up."""
        return [self.up.weight]


@dataclass(frozen=True)
class LowRank(RankAdapter):
    """Shift an activation by a low-rank map of itself: Δ(x) = W_up φ(W_down x), 2dr parameters per site.

    Args:
        rank: r. The maps are `W_down [r, d]` and `W_up [d, r]`; W_up starts at zero.
        activation: φ, "silu" (the paper's default), "gelu", "relu" or "tanh"; None for a linear adapter.
        bias: add `b_down [r]` inside φ and `b_up [d]` to the result, both zero at the start (r + d parameters more).
        init: how W_down starts. "default" is Kaiming-uniform(a=√5), which is U(-1/√d, 1/√d). "reference" is that
            times 1e-3, as in the paper's code; it learns more slowly at low learning rates (benchmarks/RESULTS.md).
            "gradient" starts as "default", until `actshift.gradient_init` sets W_down from the gradients of a task.

    Raises:
        ActshiftError: a rank below 1, an unknown activation or init; from `build`, a rank above the site's width.

    Source: arXiv 2603.00425, parameterisations "linear" and "nonlinear"; docs/method.md#low-rank. The comparison of
    inits and "gradient": this project, docs/method.md#initialisation and docs/method.md#gradient-initialisation.

    >>> LowRank(rank=8).parameter_count(2048)
    32768
    >>> LowRank(rank=2, activation=None).build(16)(torch.ones(2, 3, 16)).shape
    torch.Size([2, 3, 16])
    """

    kind: ClassVar[str] = "low_rank"
    shift = LowRankShift
    activation: Activation | None = "silu"
    bias: bool = False
    init: Init = "default"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.activation is not None:
            check_choice("activation", self.activation, get_args(Activation), ", or None for a linear adapter")
        if type(self.bias) is not bool:
            raise ActshiftError(f"bias must be True or False, got {show(self.bias)}.")
        check_choice("init", self.init, get_args(Init))
