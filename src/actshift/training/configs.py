"""From settings to a SteeringConfig: the adapter's fields, the site, the layers that slices mean, the positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, cast

from actshift.errors import ActshiftError
from actshift.model_head import TaskType
from actshift.training.settings import ADAPTER, SHIFT, TrainSettings, read_config_file

if TYPE_CHECKING:
    from actshift.adapters import Adapter
    from actshift.sites import Positions
    from actshift.tuner import Intervention, JointConfig, SteeringConfig


def layer_indices(layers: Sequence[int | str], count: int) -> list[int]:
    """Return the block indices that numbers and Python slices mean in a model of `count` blocks.

    Raises ActshiftError for a slice that is malformed, reaches out of the model or selects nothing; a single
    index is checked where it is resolved.

    >>> layer_indices([0, "-2:"], 6)
    [0, 4, 5]
    """
    return [index for layer in layers for index in _indices(str(layer), count)]


def _indices(layer: str, count: int) -> Sequence[int]:
    parts = layer.split(":")
    try:
        numbers = [int(part) if part.strip() else None for part in parts]
        chosen = slice(*numbers) if len(numbers) > 1 else None
        indices = [int(layer)] if chosen is None else range(*chosen.indices(count))
    except (ValueError, TypeError):
        raise ActshiftError(
            f"Layers {layer!r} is neither a block's index such as -1 nor a Python slice such as 4:8."
        ) from None
    bounds = numbers[:2] if chosen else []
    if not indices or any(bound is not None and not -count <= bound <= count for bound in bounds):
        raise ActshiftError(f"Layers {layer!r} is out of range: the model has {count} blocks, 0 to {count - 1}.")
    return indices


def interventions_of(settings: TrainSettings) -> tuple[Intervention, ...]:
    """Return the interventions in the file that the settings name, begun as their `init` says if it says anything.

    Raises ActshiftError where there is no such file or it holds none, and for settings that say the same as it does.
    """
    from actshift.adapters import LowRank
    from actshift.tuner.intervention import interventions_from

    for item in fields(settings):
        ours = item.metadata["panel"] in (SHIFT, ADAPTER) and item.name not in ("interventions", "init")
        if ours and getattr(settings, item.name) != item.default:
            raise ActshiftError(
                f"interventions names a file that says where and how to steer, and so does {item.name}; give one."
            )
    values = read_config_file(str(settings.interventions))
    if set(values) != {"interventions"}:
        raise ActshiftError(
            f"{settings.interventions} holds {', '.join(values) or 'nothing'}, where one list called interventions "
            "belongs; actshift locate --budget --out writes such a file."
        )
    found = interventions_from(values["interventions"])
    if settings.init == "default":
        return found
    return tuple(
        replace(one, adapter=replace(one.adapter, init=settings.init)) if isinstance(one.adapter, LowRank) else one
        for one in found
    )


SELECTS = "head_scale"
"""The adapter of LoFiT's first phase, which finds the heads that the second phase steers."""
ANY_WIDTH = 2**20


def steering_config(
    settings: TrainSettings, blocks: int | None = None, steps: int | None = None, task_type: TaskType = "CAUSAL_LM"
) -> SteeringConfig:
    """Return the SteeringConfig that `settings` describe for a model of `blocks` blocks and a run of `steps` steps.

    Without `blocks` the layers are left at "all": enough to check every name before a model is loaded. For LoFiT it
    is the config of its first phase.

    Raises:
        ActshiftError: an unknown adapter, activation, init or site, a bad rank or layer, or a setting that the
            adapter does not have.

    Example:
        >>> steering_config(TrainSettings(adapter="vector", layers=("-2:",)), blocks=6).layers
        [4, 5]
    """
    from actshift.tuner import SteeringConfig

    if settings.interventions:
        return SteeringConfig(interventions=interventions_of(settings), task_type=task_type)
    adapter = _adapter(settings, steps)
    return SteeringConfig(
        adapter=adapter,
        site=settings.site or ("attention_heads" if _needs_heads(adapter) else "post_block"),
        layers=layer_indices(settings.layers, blocks) if settings.layers and blocks else None,
        positions=_positions(settings),
        task_type=task_type,
    )


def head_vectors_config(
    settings: TrainSettings, heads: Mapping[int, Sequence[int]], task_type: TaskType = "CAUSAL_LM"
) -> SteeringConfig:
    """Return the config of LoFiT's second phase: a vector for each of the chosen `heads`, which are given by layer."""
    from actshift.adapters import HeadVector
    from actshift.tuner import Intervention, SteeringConfig

    first, positions = steering_config(settings), _positions(settings)
    return SteeringConfig(
        interventions=[
            Intervention(HeadVector(tuple(chosen)), site=str(first.site), layers=[layer], positions=positions)
            for layer, chosen in sorted(heads.items())
        ],
        task_type=task_type,
    )


def joint_config(settings: TrainSettings, steering: SteeringConfig) -> JointConfig:
    """Return the config of both halves, with `steering` as one of them and the rule between them.

    Raises ActshiftError for a rule that cannot be, and for LoFiT, whose two phases leave no place for another half.
    """
    from actshift.orthogonality import Orthogonality
    from actshift.tuner import JointConfig

    if settings.two_phases:
        raise ActshiftError(
            "LoFiT trains in two phases of its own, so it is no half of a joint run; use steering alone."
        )
    every, side = settings.orthogonality_every, settings.orthogonality
    rule = None
    if side != "none":
        number: Any = int(every) if every.isdecimal() else every
        rule = Orthogonality(side, number, settings.orthogonality_penalty)
    return JointConfig(
        r=settings.lora_r,
        lora_alpha=cast(int, settings.lora_alpha),
        lora_dropout=settings.lora_dropout,
        target_modules=list(settings.lora_targets) if settings.lora_targets else "all-linear",
        steering=steering,
        orthogonality=rule,
        task_type=steering.task_type,
    )


def _adapter(settings: TrainSettings, steps: int | None) -> Adapter:
    from actshift.adapters import ADAPTERS, adapter_from_dict

    name = SELECTS if settings.two_phases else settings.adapter
    kind = ADAPTERS.get(name)
    taken = [item.name for item in fields(kind)] if kind else []
    for item in fields(settings):
        foreign = item.metadata["panel"] == ADAPTER and item.name not in taken and "adapter" not in item.metadata["of"]
        if kind and foreign and getattr(settings, item.name) != item.default:
            raise ActshiftError(f"The adapter {settings.adapter} has no {item.name}; leave it out, or use another one.")
    values: dict[str, Any] = {field: getattr(settings, field) for field in taken if hasattr(settings, field)}
    if values.get("activation") == "none":
        values["activation"] = None
    if "anneal_steps" in taken:
        values["anneal_steps"] = steps
    return adapter_from_dict({"kind": name, **values})


def _needs_heads(adapter: Adapter) -> bool:
    try:
        adapter.check_shape(ANY_WIDTH)
    except ActshiftError:
        return True
    return False


def _positions(settings: TrainSettings) -> Positions:
    from actshift.sites import Positions

    makers = {
        "all": Positions.all,
        "prompt": Positions.prompt,
        "generated": Positions.generated,
        "last": Positions.last_token,
        "ends": lambda: Positions.ends(first=settings.first_tokens, last=settings.last_tokens),
    }
    return makers[settings.positions]()
