"""Interventions: which adapter shifts which activation, in which blocks, at which tokens."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, cast

from torch import nn

from actshift.adapters import Adapter, LowRank, adapter_from_dict
from actshift.errors import ActshiftError, check_fields, is_longer, show
from actshift.sites import Host, Positions, check_site, resolve

MAX_INTERVENTIONS = MAX_LAYERS = 10_000


@dataclass(frozen=True)
class Intervention:
    """One element of a SteeringConfig: x ← x + s·Δ(x) at a site, in some blocks, at some positions.

    `layers` are block indices, negative ones from the end; None is every block.

    Raises:
        ActshiftError: for an unknown site, or a value of another type.

    Source: arXiv 2404.03592, definition 3.1, for the terms; arXiv 2603.00425 for the sites.

    >>> Intervention(LowRank(rank=4), layers=(0, -1)).site
    'post_block'
    """

    adapter: Adapter = field(default_factory=LowRank)
    site: str = "post_block"
    layers: Sequence[int] | None = None
    positions: Positions = field(default_factory=Positions)

    def __post_init__(self) -> None:
        forms: Any = (
            ("adapter", Adapter, adapter_from_dict, "an adapter such as LowRank(rank=8) or Vector()"),
            ("positions", Positions, Positions.from_dict, "a Positions such as Positions.prompt()"),
        )
        for name, typed, from_dict, example in forms:
            value = getattr(self, name)
            value = from_dict(value) if isinstance(value, dict) else value
            if not isinstance(value, typed):
                raise ActshiftError(f"{name} must be {example}, got {show(value)} of type {type(value).__name__}.")
            object.__setattr__(self, name, value)
        check_site(self.site)
        if (layers := cast(Any, self.layers)) is not None:
            is_list = isinstance(layers, Sequence) and not isinstance(layers, str)
            if not is_list or is_longer(layers, MAX_LAYERS) or not all(type(layer) is int for layer in layers):
                allowed = f"a list or range of at most {MAX_LAYERS:,} block indices such as [0, 1] or range(-4, 0)"
                raise ActshiftError(f"layers must be {allowed}, or None for all; got {show(layers)}.")
            object.__setattr__(self, "layers", tuple(layers))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields ready for JSON, in the form that `interventions_from` reads."""
        layers = None if self.layers is None else list(self.layers)
        adapter, positions = self.adapter.to_dict(), self.positions.to_dict()
        return {"adapter": adapter, "site": self.site, "layers": layers, "positions": positions}


@dataclass(frozen=True)
class Target:
    """A host in a model, and the intervention to make there."""

    host: Host
    intervention: Intervention


def resolve_targets(model: nn.Module, interventions: Iterable[Intervention], blocks: str | None = None) -> list[Target]:
    """Return the hosts of an adapter's interventions in a model, in their order.

    `blocks` is the qualified name of the list of blocks; None finds it.

    Raises:
        ActshiftError: if a site, a layer or an adapter does not fit the model, or two interventions have the same host.

    >>> from actshift.demo import load_base
    >>> [target.host.layer for target in resolve_targets(load_base()[0], [Intervention(layers=(0, -1))])]
    [0, 5]
    """
    resolved = [
        Target(host, intervention)
        for intervention in interventions
        for host in resolve(model, intervention.site, intervention.layers, blocks)
    ]
    taken: set[tuple[str, bool]] = set()
    for target in resolved:
        host = target.host
        target.intervention.adapter.check_shape(host.width, host.heads)
        if (host.name, host.at_input) in taken:
            place = f"{host.site} of block {host.layer} ({host.name})"
            raise ActshiftError(f"Two interventions steer {place}; remove one, or load it as a second adapter.")
        taken.add((host.name, host.at_input))
    return resolved


def interventions_from(values: Any) -> tuple[Intervention, ...]:
    """Return interventions from a list of Intervention objects, or of dicts that `Intervention.to_dict` wrote.

    Raises:
        ActshiftError: for an empty list, an unknown field, or an element that is neither.

    >>> interventions_from([{"site": "post_mlp"}])[0].site
    'post_mlp'
    """
    if not isinstance(values, list | tuple) or not values:
        raise ActshiftError(f"interventions must be a list of at least one Intervention, got {show(values)}.")
    if len(cast(Sequence[Any], values)) > MAX_INTERVENTIONS:
        raise ActshiftError(f"interventions has {len(values):,} elements; at most {MAX_INTERVENTIONS:,} are allowed.")
    interventions: list[Intervention] = []
    for value in cast(Sequence[Any], values):
        if isinstance(value, dict):
            check_fields("an intervention", value, [item.name for item in fields(Intervention)])
            value = Intervention(**value)
        if not isinstance(value, Intervention):
            raise ActshiftError(f"interventions holds {show(value)}, which is not an Intervention.")
        interventions.append(value)
    return tuple(interventions)
