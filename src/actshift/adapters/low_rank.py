"""The paper's adapter: a low-rank map of the activation, linear or not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from actshift.adapters.base import Adapter, Shift, check_rank, register
from actshift.adapters.factors import ACTIVATIONS, Factors, has_hooks
from actshift.adapters.light import LightLinear
from actshift.errors import ActshiftError, did_you_mean

Activation = Literal["silu", "gelu", "relu", "tanh"]
Init = Literal["default", "reference", "gradient"]

REFERENCE_SCALE = 1e-3


class LowRankShift(Shift):
    """Δ(x) = W_up φ(W_down x + b_down) + b_up, with `W_down [r, d]`, `W_up [d, r]`; W_up and both b start at zero."""

    def __init__(self, width: int, rank: int, activation: str | None, bias: bool, init: str) -> None:
        super().__init__()
        self.activation = activation
        self.down = LightLinear(width, rank, bias=bias)
        self.up = LightLinear(rank, width, bias=bias)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.up.weight)
        for linear in (self.down, self.up):
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)
        if init == "reference":
            with torch.no_grad():
                self.down.weight.mul_(REFERENCE_SCALE)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x [..., d]` to the shift `[..., d]`."""
        return self.up(ACTIVATIONS[self.activation](self.down(x)))

    def factors(self) -> Factors | None:
        """Return both maps, unless somebody watches their calls, or their weights are no plain parameters."""
        # Looked up where nn.Module keeps them: in decoding, its own lookup would take longer than the products.
        down, up = self._modules["down"], self._modules["up"]
        assert down is not None and up is not None
        reads, writes = down._parameters, up._parameters
        read, write = reads.get("weight"), writes.get("weight")
        if read is None or write is None or has_hooks(self, down, up):
            return None
        return Factors(read, write, self.activation, reads["bias"], writes["bias"])

    def reads(self) -> list[Tensor]:
        """Return W_down."""
        return [self.down.weight]

    def writes(self) -> list[Tensor]:
        """Return W_up."""
        return [self.up.weight]


@register
@dataclass(frozen=True)
class LowRank(Adapter):
    """Shift an activation by a low-rank map of itself: Δ(x) = W_up φ(W_down x), 2dr parameters a site.

    `activation` is φ: "silu" (the paper's default), "gelu", "relu", "tanh", or None for the linear adapter.
    `bias` adds a learned offset to both maps (r + d parameters more). `init` sets W_down, W_up = 0 either way:
    "default" is Kaiming-uniform(a=√5), that is U(-1/√d, 1/√d); "reference" is the paper's code, the same × 1e-3, which
    learns more slowly at low rates, and less so or not at all at its best one [ours, benchmarks/RESULTS.md]; "gradient"
    is the default until `actshift.gradient_init` puts the directions in which a task's loss falls fastest in its place.

    Raises ActshiftError for a rank under 1, an unknown activation or init; at a site, for a rank above its width.
    Source: arXiv 2603.00425, "linear" and "nonlinear" parameterisations.

    >>> LowRank(rank=8).parameter_count(2048)
    32768
    """

    kind: ClassVar[str] = "low_rank"
    rank: int = 8
    activation: Activation | None = "silu"
    bias: bool = False
    init: Init = "default"

    def __post_init__(self) -> None:
        """Check the fields."""
        check_rank(self.rank)
        if self.activation not in ACTIVATIONS:
            allowed = get_args(Activation)
            raise ActshiftError(
                f"unknown activation {self.activation!r}{did_you_mean(self.activation, allowed)}; "
                f"use one of {', '.join(allowed)}, or None for a linear adapter."
            )
        if not isinstance(self.bias, bool):
            raise ActshiftError(f"bias must be True or False, got {self.bias!r}.")
        if self.init not in get_args(Init):
            raise ActshiftError(
                f"unknown init {self.init!r}{did_you_mean(self.init, get_args(Init))}; "
                "use 'default', 'reference' or 'gradient'."
            )

    def build(self, width: int, heads: int | None = None) -> Shift:
        """Return a `LowRankShift` of `width` d and this rank."""
        self.check_shape(width)
        return LowRankShift(width, self.rank, self.activation, self.bias, self.init)

    def parameter_count(self, width: int, heads: int | None = None) -> int:
        """Return 2dr, and r + d more with a bias."""
        return 2 * width * self.rank + (self.rank + width if self.bias else 0)

    def check_shape(self, width: int, heads: int | None = None) -> None:
        """Raise ActshiftError where the rank exceeds the site's width d."""
        check_rank(self.rank, width)
