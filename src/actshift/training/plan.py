"""What a run would do, worked out without the model's weights: sites, parameters, steps, memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actshift.errors import ActshiftError
from actshift.training.arguments import total_steps, uses_bf16
from actshift.training.encoding import encode
from actshift.training.inputs import load_splits, named
from actshift.training.run_folder import RunFolder
from actshift.training.settings import TrainSettings
from actshift.training.steering import steering_config

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from actshift.sites import Host

ACTIVATIONS_PER_BLOCK = 17
"""Numbers a block keeps for its backward pass, in batch · seq · d_model: arXiv 2205.05198, eq. 2 less its attention."""


@dataclass(frozen=True)
class Memory:
    """An estimate of what training takes, in bytes.

    weights      parameters × 2 (bf16) or 4 (fp32)
    training     trainable × 16: the weight, its gradient and Adam's two moments, all in float32
    activations  batch · seq · d_model × (17 · blocks), or × (blocks + 17) with gradient checkpointing, × 2 or 4

    seq is the longest row. The attention matrix is not kept (fused kernels), nor are the logits (a fused loss).
    """

    weights: int
    training: int
    activations: int

    @classmethod
    def estimate(
        cls, settings: TrainSettings, parameters: int, trainable: int, blocks: int, width: int, seq: int
    ) -> Memory:
        """Return the estimate for a base of `parameters` in `blocks` blocks of `width`, and rows of `seq` tokens."""
        size = 2 if uses_bf16(settings) else 4
        per_token = ACTIVATIONS_PER_BLOCK * (1 if settings.gradient_checkpointing else blocks)
        kept = blocks if settings.gradient_checkpointing else 0
        return cls(
            weights=parameters * size,
            training=trainable * 16,
            activations=settings.batch_size * seq * width * (per_token + kept) * size,
        )

    @property
    def total(self) -> int:
        """All of it, in bytes."""
        return self.weights + self.training + self.activations


@dataclass(frozen=True)
class Plan:
    """What a run would do: the sites that would be steered, and its size."""

    sites: tuple[Host, ...]
    per_site: int
    parameters: int
    rows: int
    left_out: int
    eval_rows: int
    longest: int
    steps: int
    memory: Memory

    @property
    def trainable(self) -> int:
        """Parameters that would be trained."""
        return self.per_site * len(self.sites)

    @property
    def share(self) -> float:
        """Trainable parameters over all, 0 to 1."""
        return self.trainable / self.parameters

    def to_dict(self) -> dict[str, Any]:
        """Return the figures, ready for JSON."""
        sites = [{"site": s.site, "layer": s.layer, "module": s.name, "width": s.width} for s in self.sites]
        names = ("trainable", "share", "parameters", "rows", "left_out", "eval_rows", "longest", "steps")
        memory = {name: getattr(self.memory, name) for name in ("weights", "training", "activations", "total")}
        return {"sites": sites, **{name: getattr(self, name) for name in names}, "memory_bytes": memory}


def plan(settings: TrainSettings) -> Plan:
    """Return what `train(settings)` would do; nothing is trained or written, and no weights are loaded.

    Raises:
        ActshiftError: whatever would stop the run before its first step.

    Example:
        >>> plan(TrainSettings(model="gpt2", data="rows.jsonl", out="run")).steps  # doctest: +SKIP
        234
    """
    from actshift.loading import load_config, load_tokenizer
    from actshift.sites import find_blocks, resolve

    RunFolder(Path(named(settings, "out"))).check(settings, resume=False)
    steering_config(settings)
    rows, eval_rows = load_splits(settings)
    source = named(settings, "model")
    model = _without_weights(load_config(source, settings.trust_remote_code), settings.trust_remote_code)
    encoded = encode(rows, load_tokenizer(source, settings.trust_remote_code), settings.max_length)
    blocks = len(find_blocks(model))
    config = steering_config(settings, blocks)
    sites = resolve(model, config.site, config.layers)
    width = sites[0].width
    config.intervention.check_shape(width)
    per_site = config.intervention.parameter_count(width)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Plan(
        sites=tuple(sites),
        per_site=per_site,
        parameters=parameters + per_site * len(sites),
        rows=len(encoded.examples),
        left_out=encoded.left_out,
        eval_rows=len(eval_rows) if eval_rows is not None else 0,
        longest=encoded.longest,
        steps=total_steps(len(encoded.examples), settings),
        memory=Memory.estimate(settings, parameters, per_site * len(sites), blocks, width, encoded.longest),
    )


def _without_weights(config: PretrainedConfig, trust_remote_code: bool) -> PreTrainedModel:
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    except ValueError as error:
        kind = getattr(config, "model_type", "unknown")
        raise ActshiftError(
            f"A model of type {kind!r} is not a causal language model, which training needs."
        ) from error
