"""What training takes in memory, estimated without training."""

from __future__ import annotations

from dataclasses import dataclass

from actshift.training.arguments import uses_bf16
from actshift.training.settings import TrainSettings

ACTIVATIONS_PER_BLOCK = 17
"""Numbers a block keeps for its backward pass, in batch · seq · d_model: arXiv 2205.05198, eq. 2 less its attention."""


@dataclass(frozen=True)
class Memory:
    """An estimate of what training takes, in bytes.

    weights      frozen parameters × 2 (bf16) or 4 (fp32)
    training     trainable × 16: the weight, its gradient and Adam's two moments, all in float32
    activations  batch · seq · d_model × (17 · blocks), or × (blocks + 17) with gradient checkpointing, × 2 or 4

    seq is the longest row. The attention matrix is not kept (fused kernels), nor are the logits (a fused loss).
    """

    weights: int
    training: int
    activations: int

    @classmethod
    def estimate(
        cls, settings: TrainSettings, frozen: int, trainable: int, blocks: int, width: int, seq: int
    ) -> Memory:
        """Return the estimate for a model of `blocks` blocks of `width`, and rows of `seq` tokens."""
        size = 2 if uses_bf16(settings) else 4
        per_token = ACTIVATIONS_PER_BLOCK * (1 if settings.gradient_checkpointing else blocks)
        kept = blocks if settings.gradient_checkpointing else 0
        return cls(
            weights=frozen * size,
            training=trainable * 16,
            activations=settings.batch_size * seq * width * (per_token + kept) * size,
        )

    @property
    def total(self) -> int:
        """All of it, in bytes."""
        return self.weights + self.training + self.activations
