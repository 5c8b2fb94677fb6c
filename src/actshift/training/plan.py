"""Dry run: adapted modules, sizes, steps and memory of a run, computed without the model's weights."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from actshift.training.build import adapt, base_without_weights
from actshift.training.configs import AdapterSpec
from actshift.training.data import read_inputs
from actshift.training.fit import parameter_counts
from actshift.training.lofit import head_scales, heads_to_keep, phases
from actshift.training.run_folder import RunFolder
from actshift.training.settings import TrainSettings, require_setting

# Numbers that a block stores for its backward pass, in units of batch · seq · d_model, without the attention matrix.
ACTIVATIONS_PER_BLOCK = 17  # Source: arXiv 2205.05198, eq. 2


@dataclass(frozen=True)
class Memory:
    """An estimate of the memory for training, in bytes.

    The attention matrix is not stored (fused kernels), and neither are the logits (a fused loss).

    Attributes:
        weights: frozen parameters × 2 (bf16) or 4 (fp32).
        training: trained parameters × 16: the weight, its gradient and two Adam moments in float32.
        activations: batch · seq · d_model × (17 · blocks), or × (blocks + 17) with gradient checkpointing, × 2 or 4;
            seq is the longest row.
    """

    weights: int
    training: int
    activations: int

    @classmethod
    def estimate(cls, settings: TrainSettings, frozen: int, trained: int, blocks: int, width: int, seq: int) -> Memory:
        """Return the estimate for a model of `blocks` blocks of `width`, and rows of `seq` tokens."""
        from actshift.training.trainer import uses_bf16

        size, recomputes = 2 if uses_bf16(settings) else 4, settings.gradient_checkpointing
        per_token = ACTIVATIONS_PER_BLOCK + blocks if recomputes else ACTIVATIONS_PER_BLOCK * blocks
        return cls(frozen * size, trained * 16, settings.batch_size * seq * width * per_token * size)

    @property
    def total(self) -> int:
        """The sum of all parts, in bytes."""
        return self.weights + self.training + self.activations


@dataclass(frozen=True)
class AdaptedModule:
    """A module that would be adapted: its block, its site (or "weight" for LoRA), and the parameters trained there."""

    layer: int | None
    site: str
    module: str
    width: int
    parameters: int


@dataclass(frozen=True)
class Plan:
    """The modules that a run would adapt, and its size; `cache` is the size of cache_prefix in bytes.

    With many rows, `sampled` of them are tokenized: `rows`, `left_out`, `longest`, `steps` and `memory` are estimates.
    """

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
    layout: str = ""  # of the rows
    sampled: int = 0

    @property
    def share(self) -> float:
        """Trained parameters over all parameters, from 0 to 1."""
        return self.trainable / self.parameters

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON data."""
        names = ("trainable", "share", "parameters", "rows", "left_out", "eval_rows", "longest", "steps", "layout")
        return {
            "places": [asdict(place) for place in self.places],
            **{name: getattr(self, name) for name in names},
            **({"sampled": self.sampled} if self.sampled else {}),
            "memory_bytes": {**asdict(self.memory), "total": self.memory.total},
            **({"cache_bytes": self.cache} if self.cache else {}),
        }


def plan(settings: TrainSettings) -> Plan:
    """Return what `train(settings)` would do, without training, writing or loading weights.

    Raises:
        ActshiftError: any error that `train` would raise before its first step, except for rows outside the sample.

    Example:
        >>> plan(TrainSettings(model="gpt2", data="rows.jsonl", out="run")).steps  # doctest: +SKIP
        234
    """
    from actshift.loading import load_tokenizer
    from actshift.sites import find_blocks, resolve
    from actshift.training.prefix_cache import cache_bytes

    RunFolder(Path(require_setting(settings, "out"))).check(settings, resume=False)
    spec = AdapterSpec.from_settings(settings)
    inputs = read_inputs(settings)
    model = base_without_weights(settings, inputs.head, inputs.config)
    tokenizer = load_tokenizer(require_setting(settings, "model"), settings.trust_remote_code, settings.revision)
    if settings.cache_prefix == "off":
        encoded, sample = inputs.encode_sample(tokenizer, settings)
    else:  # the size of the cache depends on the length of every row
        encoded, sample = inputs.encode(inputs.rows, tokenizer, settings), inputs.rows
    scale = len(inputs.rows) / len(sample)
    rows = round(scale * len(encoded.examples))
    steps = settings.total_steps(rows)
    if settings.two_phases:
        phases(steps, settings)
    blocks, width = len(find_blocks(model)), resolve(model, "post_block", [0])[0].width
    adapted = adapt(model, spec, steps, head=inputs.head)
    trainable, parameters = final_parameter_counts(adapted, settings)
    return Plan(
        places=tuple(_adapted_modules(adapted)),
        trainable=trainable,
        parameters=parameters,
        rows=rows,
        left_out=round(scale * encoded.left_out),
        eval_rows=len(inputs.eval_rows) if inputs.eval_rows is not None else 0,
        longest=encoded.longest,
        steps=steps,
        memory=Memory.estimate(settings, parameters - trainable, trainable, blocks, width, encoded.longest),
        cache=cache_bytes(adapted, settings, encoded.examples, steps, width),
        layout=inputs.rows.info.description,
        sampled=len(sample) if len(sample) < len(inputs.rows) else 0,
    )


def final_parameter_counts(adapted: Any, settings: TrainSettings) -> tuple[int, int]:
    """Return the number of trained and of all parameters at the end of a run, for LoFiT with a vector per kept head."""
    trainable, parameters = parameter_counts(adapted)
    if not settings.two_phases:
        return trainable, parameters
    shapes = [shift.scale.shape for shift in head_scales(adapted).values()]
    kept = heads_to_keep(sum(heads for heads, _ in shapes), settings) * shapes[0][1]
    return kept, parameters - trainable + kept


def _adapted_modules(adapted: Any) -> list[AdaptedModule]:
    """Return the modules that have an adapter or LoRA; none if every weight is trained."""
    from actshift.tuner import SteeringLayer

    sizes = Counter[str]()
    for name, parameter in adapted.named_parameters():
        module, prefix, _ = name.partition(".lora_")  # the tensors of both start with it
        if prefix and parameter.requires_grad:
            sizes[module] += parameter.numel()
    places: list[AdaptedModule] = []
    for path, size in sizes.items():
        module, name = adapted.get_submodule(path), path.removeprefix("base_model.model.")
        if isinstance(module, SteeringLayer):
            name = name.rpartition(".")[0]
            places.append(AdaptedModule(module.layer_index, module.site, name, module.width, size))
        else:
            places.append(AdaptedModule(None, "weight", name, module.in_features, size))
    return places
