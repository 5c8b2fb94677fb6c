"""What a run would do, worked out without the model's weights: where, how much, how long, in how much memory."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from actshift.training.arguments import total_steps, uses_bf16
from actshift.training.build import adapt, base_without_weights, check_names
from actshift.training.data import read_inputs, require_setting
from actshift.training.fit import parameter_counts
from actshift.training.lofit import heads_to_keep, phases, scales
from actshift.training.run_folder import RunFolder
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


@dataclass(frozen=True)
class AdaptedModule:
    """A module that would be adapted: its block, the site that is steered there or "weight", and what is trained."""

    layer: int | None
    site: str
    module: str
    width: int
    parameters: int


@dataclass(frozen=True)
class Plan:
    """What a run would do: where it would adapt the model, and its size; `cache` is that of cache_prefix, in bytes."""

    places: tuple[AdaptedModule, ...]
    trainable: int
    parameters: int
    rows: int
    left_out: int
    eval_rows: int
    longest: int
    steps: int
    memory: Memory
    cache: int = 0

    @property
    def share(self) -> float:
        """Trainable parameters over all, 0 to 1."""
        return self.trainable / self.parameters

    def to_dict(self) -> dict[str, Any]:
        """Return the figures, ready for JSON."""
        names = ("trainable", "share", "parameters", "rows", "left_out", "eval_rows", "longest", "steps")
        cache = {"cache_bytes": self.cache} if self.cache else {}
        memory = {name: getattr(self.memory, name) for name in ("weights", "training", "activations", "total")}
        places = [asdict(place) for place in self.places]
        return {"places": places, **{name: getattr(self, name) for name in names}, "memory_bytes": memory, **cache}


def plan(settings: TrainSettings) -> Plan:
    """Return what `train(settings)` would do; nothing is trained or written, and no weights are loaded.

    Raises:
        ActshiftError: whatever would stop the run before its first step.

    Example:
        >>> plan(TrainSettings(model="gpt2", data="rows.jsonl", out="run")).steps  # doctest: +SKIP
        234
    """
    from actshift.loading import load_tokenizer
    from actshift.sites import find_blocks, resolve
    from actshift.training.prefix_cache import cache_bytes

    RunFolder(Path(require_setting(settings, "out"))).check(settings, resume=False)
    check_names(settings)
    inputs = read_inputs(settings)
    model = base_without_weights(settings, inputs.head)
    tokenizer = load_tokenizer(require_setting(settings, "model"), settings.trust_remote_code)
    encoded = inputs.objective.encode(inputs.rows, tokenizer, settings, inputs.head)
    steps = total_steps(len(encoded.examples), settings)
    if settings.two_phases:
        phases(steps, settings)
    blocks, width = len(find_blocks(model)), resolve(model, "post_block", [0])[0].width
    adapted = adapt(model, settings, steps, head=inputs.head)
    trainable, parameters = counts(adapted, settings)
    return Plan(
        places=tuple(places_in(adapted)),
        trainable=trainable,
        parameters=parameters,
        rows=len(encoded.examples),
        left_out=encoded.left_out,
        eval_rows=len(inputs.eval_rows) if inputs.eval_rows is not None else 0,
        longest=encoded.longest,
        steps=steps,
        memory=Memory.estimate(settings, parameters - trainable, trainable, blocks, width, encoded.longest),
        cache=cache_bytes(adapted, settings, encoded.examples, steps, width),
    )


def counts(adapted: Any, settings: TrainSettings) -> tuple[int, int]:
    """Return how many parameters are trained and how many there are in all, of what the run ends with.

    LoFiT ends with a vector for each head that it keeps, whichever they will be.
    """
    trainable, parameters = parameter_counts(adapted)
    if not settings.two_phases:
        return trainable, parameters
    shapes = [shift.scale.shape for shift in scales(adapted).values()]
    kept = heads_to_keep(sum(heads for heads, _ in shapes), settings) * shapes[0][1]
    return kept, parameters - trainable + kept


def places_in(adapted: Any) -> list[AdaptedModule]:
    """Return the modules of an adapted model that are steered or have LoRA; none where every weight is trained."""
    sizes: dict[str, int] = {}
    for name, parameter in adapted.named_parameters():
        module, found, _ = name.partition(".lora_")  # how the tensors of both begin
        if found and parameter.requires_grad:
            sizes[module] = sizes.get(module, 0) + parameter.numel()
    return [_place(adapted.get_submodule(name), name, size) for name, size in sizes.items()]


def _place(module: Any, name: str, size: int) -> AdaptedModule:
    from actshift.tuner import SteeringLayer

    name = name.removeprefix("base_model.model.")
    if isinstance(module, SteeringLayer):
        return AdaptedModule(module.layer_index, module.site, name.rpartition(".")[0], module.width, size)
    return AdaptedModule(None, "weight", name, module.in_features, size)
