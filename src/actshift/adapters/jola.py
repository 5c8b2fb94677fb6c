"""JoLA: learn which attention heads to steer, and whether by a factor, by an offset, or by both."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from actshift.adapters.base import Adapter, Shift, check_weight, head_width, register
from actshift.errors import ActshiftError

LOW, HIGH = -0.1, 1.1
"""γ and ζ, between which a gate is stretched before it is clamped to [0, 1]."""

EDGE = 1e-6  # keeps the noise away from 0 and 1, so that its logit stays within ±13.8
SETTLED = 50.0  # |log α| of a gate settled for good: no noise reaches across, at any temperature up to 1


class HardConcrete(nn.Module):
    """Hard-concrete gates, with one `log_alpha` each: `[gates]` values in [0, 1].

    In training they are sampled, and exactly 0 or 1 with a probability of their own:

        u ~ U(0, 1),  s = σ((log u - log(1 - u) + log α) / β),  z = clamp(s (ζ - γ) + γ, 0, 1)

    In evaluation each is the rounded z of the median u = 1/2: 1 where log α > 0, else 0. β is the temperature, and
    everything is computed in float32 at least. A checkpointed forward samples the same gates again, since
    checkpointing restores torch's random state.

    Source: Louizos, Welling, Kingma, arXiv 1712.01312, eqs. 10 to 13; rounding the evaluated gate is [ours].

    >>> gates = HardConcrete(4, open_at_start=0.9, temperature=0.33).eval()
    >>> gates(0.33).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """

    def __init__(self, gates: int, open_at_start: float, temperature: float) -> None:
        super().__init__()
        start = math.log(open_at_start / (1 - open_at_start)) + temperature * math.log(-LOW / HIGH)
        self.log_alpha = nn.Parameter(torch.full((gates,), start))

    def forward(self, temperature: Tensor | float) -> Tensor:
        """Return the gates `[gates]` at this temperature, sampled afresh in training."""
        log_alpha = self._wide()
        if not self.training:
            return (log_alpha > 0).to(log_alpha.dtype)
        noise = torch.rand_like(log_alpha).clamp(EDGE, 1 - EDGE).logit()
        stretched = torch.sigmoid((noise + log_alpha) / temperature) * (HIGH - LOW) + LOW
        return stretched.clamp(0, 1)

    def open_probability(self, temperature: Tensor | float) -> Tensor:
        """Return P(z ≠ 0) = σ(log α - β log(-γ / ζ)) `[gates]` (arXiv 1712.01312, eq. 12)."""
        return torch.sigmoid(self._wide() - temperature * math.log(-LOW / HIGH))

    @torch.no_grad()
    def settle(self) -> None:
        """Make every gate what it is in evaluation, in training too and for good."""
        self.log_alpha.copy_(torch.where(self.log_alpha > 0, SETTLED, -SETTLED))

    def _wide(self) -> Tensor:
        return self.log_alpha.to(torch.promote_types(self.log_alpha.dtype, torch.float32))


OPEN_AT_START = 0.9
"""P(open) of a fresh gate [ours]: gradients reach every head at once, and a gate that evaluation would round to
closed is yet some hundred steps away. The authors' code starts near 0.7, where the first steps decide at random."""


class JoLAShift(Shift):
    """Δ(x) = g_m · (a ⊙ x) + g_a · v, one gate g_m and one g_a a head.

    `scale [heads, d_head]` (a) and `vector [heads, d_head]` (v) are zero at the start. `step`, an integer that no
    change of dtype rounds, counts optimiser steps; it is stored, so that a resumed run is as cool as it was.
    """

    step: Tensor

    def __init__(self, heads: int, d_head: int, adapter: JoLA) -> None:
        super().__init__()
        self.adapter = adapter
        self.scale = nn.Parameter(torch.zeros(heads, d_head))
        self.vector = nn.Parameter(torch.zeros(heads, d_head))
        self.scale_gate = HardConcrete(heads, OPEN_AT_START, adapter.temperature)
        self.vector_gate = HardConcrete(heads, OPEN_AT_START, adapter.temperature)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """Map `x [..., heads · d_head]` to the shift of that shape; gates are sampled in training, 0 or 1 else."""
        temperature = self.temperature()
        scale, vector = (
            (gate(temperature).to(gated.dtype)[:, None] * gated).flatten()
            for gate, gated in ((self.scale_gate, self.scale), (self.vector_gate, self.vector))
        )
        return scale * x + vector

    def temperature(self) -> Tensor | float:
        """Return β at this step: from `temperature` down to `end_temperature`, by an equal factor each step."""
        start, end, steps = self.adapter.temperature, self.adapter.end_temperature, self.adapter.anneal_steps
        if steps is None:
            return start
        return start * (end / start) ** (self.step.clamp(max=steps) / steps)

    def penalty(self) -> Tensor | None:
        """Return l0 times the expected number of open gates in float32, or None where l0 is 0."""
        if not self.adapter.l0:
            return None
        beta = self.temperature()
        gates = self.scale_gate.open_probability(beta).sum() + self.vector_gate.open_probability(beta).sum()
        return self.adapter.l0 * gates

    def after_step(self) -> None:
        """Count the step, by which the temperature falls."""
        self.step += 1

    def finish(self) -> None:
        """Settle each gate at the 0 or 1 that it has in evaluation; nothing opens or closes it afterwards."""
        self.scale_gate.settle()
        self.vector_gate.settle()


@register
@dataclass(frozen=True)
class JoLA(Adapter):
    """Steer attention heads by a factor and an offset, each behind a gate of its own: Δ(x) = g_m · (a ⊙ x) + g_a · v.

    Every head has `a [d_head]`, `v [d_head]` and two hard-concrete gates (`HardConcrete`), 2d + 2 · heads parameters
    a site. In training the gates are sampled; evaluated, saved and reloaded they are exactly 0 or 1. `l0` weighs the
    penalty l0 · Σ P(gate open) that every optimiser step adds to the loss. The gates' temperature β is `temperature`;
    with `anneal_steps` it falls to `end_temperature` over so many optimiser steps, by an equal factor each, and stays.

    Raises ActshiftError for a negative l0, temperatures outside (0, 1], one that rises, anneal_steps under 1; at a
    site, where there are no attention heads.
    Source: Lai, Fraser, Titov, JoLA, arXiv 2502.01179. β = 0.33, γ = -0.1 and ζ = 1.1 are from the authors' code, which
    keeps β constant (as `anneal_steps=None` does). [ours]: the schedule's shape and end; l0 = 4e-5, about what their
    trainer's λ makes of one gate on Llama-3.1-8B; the start a = v = 0, a no-op, where theirs is N(0, 1e-3).

    >>> JoLA().parameter_count(2048, heads=32)
    4160
    """

    kind: ClassVar[str] = "jola"
    l0: float = 4e-5
    temperature: float = 0.33
    end_temperature: float = 0.1
    anneal_steps: int | None = None

    def __post_init__(self) -> None:
        """Check the penalty's weight and the schedule."""
        check_weight("l0", self.l0)
        for name in ("temperature", "end_temperature"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
                raise ActshiftError(f"{name} must be a number above 0 and up to 1 such as 0.33, got {value!r}.")
        if self.anneal_steps is not None and (type(self.anneal_steps) is not int or self.anneal_steps < 1):
            raise ActshiftError(
                f"anneal_steps must be a number of optimiser steps from 1 up, or None for a constant temperature; "
                f"got {self.anneal_steps!r}."
            )
        if self.anneal_steps is not None and self.end_temperature > self.temperature:
            raise ActshiftError(
                f"end_temperature {self.end_temperature} is above temperature {self.temperature}, and gates only "
                "cool; lower it."
            )

    def build(self, width: int, heads: int | None = None) -> Shift:
        """Return a `JoLAShift` for a site of `width` d made of `heads`."""
        d_head = head_width(self.kind, width, heads)
        return JoLAShift(width // d_head, d_head, self)

    def parameter_count(self, width: int, heads: int | None = None) -> int:
        """Return 2d + 2 · heads."""
        return 2 * width + 2 * (width // head_width(self.kind, width, heads))

    def check_shape(self, width: int, heads: int | None = None) -> None:
        """Raise ActshiftError where there are no heads, or they do not share the width evenly."""
        head_width(self.kind, width, heads)
