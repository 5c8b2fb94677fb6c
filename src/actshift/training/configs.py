"""From settings to a PEFT config: the interventions, the layer slices, and the constraint of joint training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, cast

from actshift.errors import ActshiftError
from actshift.model_head import TaskType
from actshift.training.settings import ADAPTER, SHIFT, TrainSettings, read_config_file

if TYPE_CHECKING:
    from actshift.adapters import Adapter
    from actshift.orthogonality import Orthogonality
    from actshift.tuner import Intervention, JointConfig, SteeringConfig


@dataclass(frozen=True)
class AdapterSpec:
    """The adapter that settings describe, with every name checked, before the model and the rows are known."""

    settings: TrainSettings
    interventions: tuple[Intervention, ...] = ()  # without layers that depend on the model; empty without steering
    rule: Orthogonality | None = None  # the constraint of joint training

    @classmethod
    def from_settings(cls, settings: TrainSettings) -> AdapterSpec:
        """Return the adapter of the settings; for LoFiT, the one of its first phase.

        Raises:
            ActshiftError: a name is wrong, the adapter lacks a setting, or LoFiT is combined with LoRA or `start`.

        Example:
            >>> AdapterSpec.from_settings(TrainSettings(adapter="vector", site="post_mlp")).interventions[0].adapter
            Vector()
        """
        if not settings.steers:
            return cls(settings)
        interventions = interventions_of(settings)
        if settings.start:
            from actshift.tuner import read_config

            if settings.two_phases:
                raise ActshiftError("LoFiT selects its heads from scratch; leave start out, or use another adapter.")
            read_config(settings.start)
        return cls(settings, interventions, _joint_rule(settings) if settings.method == "joint" else None)

    def config(
        self, blocks: int, steps: int | None = None, task_type: TaskType = "CAUSAL_LM"
    ) -> SteeringConfig | JointConfig:
        """Return the PEFT config for a model of `blocks` blocks and a run of `steps` steps (for schedules of adapters).

        Raises:
            ActshiftError: a layer is malformed or outside the model.

        Example:
            >>> AdapterSpec.from_settings(TrainSettings(layers=("-2:",))).config(blocks=6).layers
            [4, 5]
        """
        from actshift.tuner import JointConfig, SteeringConfig

        settings, interventions = self.settings, self.interventions
        if not settings.interventions:  # a file of interventions is complete
            [single] = interventions
            schedule: Any = {"anneal_steps": steps} if hasattr(single.adapter, "anneal_steps") else {}
            layers = layer_indices(settings.layers, blocks) if settings.layers else None
            interventions = (replace(single, adapter=replace(single.adapter, **schedule), layers=layers),)
        steering = SteeringConfig(interventions=interventions, task_type=task_type)
        if settings.method == "steering":
            return steering
        return JointConfig(
            r=settings.lora_r,
            lora_alpha=cast(int, settings.lora_alpha),
            lora_dropout=settings.lora_dropout,
            target_modules=list(settings.lora_targets or ()) or "all-linear",
            steering=steering,
            orthogonality=self.rule,
            task_type=task_type,
        )

    def head_vectors_config(self, heads: Mapping[int, Sequence[int]], task_type: TaskType) -> SteeringConfig:
        """Return the config of LoFiT's second phase: a vector per selected head. `heads` maps layers to indices."""
        from actshift.adapters import HeadVector
        from actshift.tuner import SteeringConfig

        [first] = self.interventions
        selections = [(layer, HeadVector(tuple(selected))) for layer, selected in sorted(heads.items())]
        interventions = [replace(first, adapter=vector, layers=[layer]) for layer, vector in selections]
        return SteeringConfig(interventions=interventions, task_type=task_type)


def layer_indices(layers: Sequence[int | str], count: int) -> list[int]:
    """Return the block indices that indices (unchecked) and Python slices select in a model of `count` blocks.

    Raises:
        ActshiftError: a slice is malformed, exceeds the model or selects nothing.

    >>> layer_indices([0, "-2:"], 6)
    [0, 4, 5]
    """
    return [index for layer in layers for index in _slice_indices(str(layer), count)]


def _slice_indices(layer: str, count: int) -> Sequence[int]:
    try:
        numbers = [int(part) if part.strip() else None for part in layer.split(":")]
        selection = slice(*numbers) if len(numbers) > 1 else None
        indices = [int(layer)] if selection is None else range(*selection.indices(count))
    except (ValueError, TypeError):
        raise ActshiftError(f"{layer!r} is neither a block's index such as -1 nor a Python slice like 4:8.") from None
    bounds = numbers[:2] if selection else []
    if not indices or any(bound is not None and not -count <= bound <= count for bound in bounds):
        raise ActshiftError(f"Layers {layer!r} is out of range: the model has {count} blocks, 0 to {count - 1}.")
    return indices


def interventions_of(settings: TrainSettings) -> tuple[Intervention, ...]:
    """Return the interventions of the settings, without layers, or those of the file that they name.

    Raises:
        ActshiftError: an adapter, site or rank is wrong, or the file is missing, malformed or contradicts a setting.
    """
    from actshift.sites import Positions
    from actshift.tuner import Intervention

    if settings.interventions:
        return _interventions_in_file(settings)
    adapter, default = _adapter(settings), "post_block"
    try:
        adapter.check_shape(2**20)
    except ActshiftError:  # it shifts heads, whose outputs have two dimensions
        default = "attention_heads"
    ends = {"first": settings.first_tokens, "last": settings.last_tokens} if settings.positions == "ends" else {}
    positions = getattr(Positions, "last_token" if settings.positions == "last" else settings.positions)(**ends)
    return (Intervention(adapter, settings.site or default, positions=positions),)


def _interventions_in_file(settings: TrainSettings) -> tuple[Intervention, ...]:
    from actshift.adapters import LowRank
    from actshift.tuner.intervention import interventions_from

    for item in fields(settings):
        replaced = item.metadata["panel"] in (SHIFT, ADAPTER) and item.name not in ("interventions", "init")
        if replaced and getattr(settings, item.name) != item.default:
            raise ActshiftError(f"The file of interventions replaces {item.name}; give one of them.")
    values = read_config_file(str(settings.interventions))
    if set(values) != {"interventions"}:
        problem = f"contains {', '.join(values) or 'nothing'}, not one list called interventions"
        raise ActshiftError(f"{settings.interventions} {problem}; write it with actshift locate --budget --out.")
    interventions = interventions_from(values["interventions"])
    if settings.init == "default":
        return interventions
    return tuple(
        replace(each, adapter=replace(each.adapter, init=settings.init)) if isinstance(each.adapter, LowRank) else each
        for each in interventions
    )


def _adapter(settings: TrainSettings) -> Adapter:
    from actshift.adapters import ADAPTERS, adapter_from_dict

    name = "head_scale" if settings.two_phases else settings.adapter  # for LoFiT's first phase
    adapter_class: Any = ADAPTERS.get(name)
    own = [item.name for item in fields(adapter_class)] if adapter_class else []
    for item in fields(settings):
        foreign = item.metadata["panel"] == ADAPTER and item.name not in own
        lofit_only = "adapter" in item.metadata["applies_to"]
        if adapter_class and foreign and not lofit_only and getattr(settings, item.name) != item.default:
            raise ActshiftError(f"The adapter {settings.adapter} has no {item.name}; leave it out, or use another one.")
    values: dict[str, Any] = {field: getattr(settings, field) for field in own if hasattr(settings, field)}
    if values.get("activation") == "none":
        values["activation"] = None
    return adapter_from_dict({"kind": name, **values})


def _joint_rule(settings: TrainSettings) -> Orthogonality | None:
    from actshift.orthogonality import Orthogonality

    if settings.two_phases:
        raise ActshiftError("LoFiT trains in two phases and cannot be combined with LoRA; use method steering.")
    if settings.orthogonality == "none":
        return None
    every: Any = settings.orthogonality_every
    every = int(every) if every.isdecimal() else every
    return Orthogonality(settings.orthogonality, every, settings.orthogonality_penalty)
