"""JoLA: learn which attention heads to steer, and whether to scale them, to add a vector, or both."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from actshift.adapters.base import HeadAdapter, Shift, check_penalty_weight
from actshift.errors import ActshiftError, is_number, show

STRETCH_LOW, STRETCH_HIGH = -0.1, 1.1  # γ and ζ
STRETCH_OFFSET = math.log(-STRETCH_LOW / STRETCH_HIGH)
NOISE_EPSILON = 1e-6  # bounds the logit of the noise to ±13.8
FINAL_LOG_ALPHA = 50.0  # no noise changes such a gate, at any temperature up to 1

INITIAL_OPEN_PROBABILITY = 0.9
"""P(gate open) at the start. All heads then get gradients from the first step, and it takes some hundred steps until
evaluation would round a gate to closed. The authors' code starts near 0.7, and the first steps then decide at random.
Source: this project, docs/method.md#gates."""


class HardConcrete(nn.Module):
    """Hard-concrete gates `[gates]` with values in [0, 1], and one parameter `log_alpha` each.

    In training the gates are sampled, and are exactly 0 or 1 with positive probability: with u ~ U(0, 1) and
    s = σ((log u - log(1 - u) + log α) / β), a gate is z = clamp(s (ζ - γ) + γ, 0, 1). In evaluation it is z at the
    median u = 1/2, rounded: 1 if log α > 0, else 0. β is the temperature. The computation is in float32 or wider.

    Source: Louizos, Welling, Kingma, arXiv 1712.01312, eqs. 10 to 13. Rounding in evaluation: this project,
    docs/method.md#gates.

    >>> gates = HardConcrete(4, open_probability=0.9, temperature=0.33).eval()
    >>> gates(0.33).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """

    def __init__(self, gates: int, open_probability: float, temperature: float) -> None:
        super().__init__()
        log_alpha = math.log(open_probability / (1 - open_probability)) + temperature * STRETCH_OFFSET
        self.log_alpha = nn.Parameter(torch.full((gates,), log_alpha))

    def forward(self, temperature: Tensor | float) -> Tensor:
        """Return the gates `[gates]` at this temperature: sampled in training, 0 or 1 in evaluation."""
        log_alpha = self._float32_log_alpha()
        if not self.training:
            return (log_alpha > 0).to(log_alpha.dtype)
        noise = torch.rand_like(log_alpha).clamp(NOISE_EPSILON, 1 - NOISE_EPSILON).logit()
        stretched = torch.sigmoid((noise + log_alpha) / temperature) * (STRETCH_HIGH - STRETCH_LOW) + STRETCH_LOW
        return stretched.clamp(0, 1)

    def open_probability(self, temperature: Tensor | float) -> Tensor:
        """Return P(z ≠ 0) = σ(log α - β log(-γ / ζ)) `[gates]` (arXiv 1712.01312, eq. 12)."""
        return torch.sigmoid(self._float32_log_alpha() - temperature * STRETCH_OFFSET)

    @torch.no_grad()
    def finalize(self) -> None:
        """Fix every gate at its value in evaluation, also for training mode."""
        self.log_alpha.copy_(torch.where(self.log_alpha > 0, FINAL_LOG_ALPHA, -FINAL_LOG_ALPHA))

    def _float32_log_alpha(self) -> Tensor:
        return self.log_alpha.to(torch.promote_types(self.log_alpha.dtype, torch.float32))


class JoLAShift(Shift):
    """Δ(x) = g_m · (a ⊙ x) + g_a · v, with one gate g_m and one gate g_a per head.

    `scale [heads, d_head]` (a) and `vector [heads, d_head]` (v) start at zero. The buffer `step` counts optimiser
    steps. It is an integer, which dtype conversion does not round, and is saved for resumed runs.
    """

    step: Tensor

    def __init__(self, adapter: JoLA, width: int, heads: int) -> None:
        super().__init__()
        self.adapter = adapter
        self.scale = nn.Parameter(torch.zeros(heads, width // heads))
        self.vector = nn.Parameter(torch.zeros(heads, width // heads))
        self.scale_gate = HardConcrete(heads, INITIAL_OPEN_PROBABILITY, adapter.temperature)
        self.vector_gate = HardConcrete(heads, INITIAL_OPEN_PROBABILITY, adapter.temperature)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """Map `x [..., heads · d_head]` to the shift of the same shape, with gates as in `HardConcrete`."""
        temperature = self.temperature()
        scale = self.scale_gate(temperature).to(self.scale.dtype)[:, None] * self.scale
        vector = self.vector_gate(temperature).to(self.vector.dtype)[:, None] * self.vector
        return scale.flatten() * x + vector.flatten()

    def temperature(self) -> Tensor | float:
        """Return β at this step. It falls geometrically from `temperature` to `end_temperature`."""
        start, end, steps = self.adapter.temperature, self.adapter.end_temperature, self.adapter.anneal_steps
        return start if steps is None else start * (end / start) ** (self.step.clamp(max=steps) / steps)

    def penalty(self) -> Tensor | None:
        """Return l0 times the expected number of open gates in float32, or None if l0 is 0."""
        if not self.adapter.l0:
            return None
        beta = self.temperature()
        gates = self.scale_gate.open_probability(beta).sum() + self.vector_gate.open_probability(beta).sum()
        return self.adapter.l0 * gates

    def after_step(self) -> None:
        """Count the step, which lowers the temperature."""
        self.step += 1

    def finish(self) -> None:
        """Fix each gate at its value in evaluation, 0 or 1. Further training does not change it."""
        self.scale_gate.finalize()
        self.vector_gate.finalize()


@dataclass(frozen=True)
class JoLA(HeadAdapter):
    """Steer attention heads by a gated factor and a gated vector: Δ(x) = g_m · (a ⊙ x) + g_a · v.

    Every head has `a [d_head]`, `v [d_head]` and two hard-concrete gates (see `HardConcrete`), in all 2d + 2 · heads
    parameters per site. Gates are sampled in training, and are exactly 0 or 1 in evaluation and after saving.

    Args:
        l0: weight of the penalty l0 · Σ P(gate open), which is added to the loss of every optimiser step.
        temperature: β of the gates, above 0 and at most 1.
        end_temperature: β after `anneal_steps`, at most `temperature`.
        anneal_steps: number of optimiser steps over which β falls geometrically. None keeps `temperature`.

    Raises:
        ActshiftError: a negative or non-finite l0, a temperature outside (0, 1], an end_temperature above temperature,
            anneal_steps below 1; from `build`, a site without attention heads.

    Source: Lai, Fraser, Titov, JoLA, arXiv 2502.01179; docs/method.md#jola. β = 0.33, γ = -0.1 and ζ = 1.1 are from the
    authors' code, which keeps β constant. This project, docs/method.md#gates: the schedule of β and its end; l0 = 4e-5,
    about the weight per gate of the authors' λ on Llama-3.1-8B; a = v = 0 at the start, where theirs is N(0, 1e-3).

    >>> JoLA().parameter_count(2048, heads=32)
    4160
    """

    kind: ClassVar[str] = "jola"
    shift = JoLAShift
    l0: float = 4e-5
    temperature: float = 0.33
    end_temperature: float = 0.1
    anneal_steps: int | None = None

    def __post_init__(self) -> None:
        check_penalty_weight("l0", self.l0)
        start, end, steps = self.temperature, self.end_temperature, self.anneal_steps
        for name, value in (("temperature", start), ("end_temperature", end)):
            if not is_number(value) or not 0 < value <= 1:
                raise ActshiftError(f"{name} must be a number above 0 and up to 1 such as 0.33, got {show(value)}.")
        if steps is None:
            return
        if type(steps) is not int or not 1 <= steps < 2**31:
            raise ActshiftError(
                f"anneal_steps must be a number of optimiser steps from 1 up, or None; got {show(steps)}."
            )
        if end > start:
            raise ActshiftError(f"end_temperature {end} is above temperature {start}. Lower end_temperature.")
