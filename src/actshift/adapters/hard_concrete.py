"""Gates that are exactly closed or open with a probability that gradients can change."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

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
