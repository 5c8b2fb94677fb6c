"""An intervention: which adapter shifts which activation, in which blocks, at which tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from torch import nn

from actshift.adapters import Adapter, LowRank, adapter_from_dict
from actshift.errors import ActshiftError, did_you_mean
from actshift.sites import Host, Positions, check_site, resolve


@dataclass(frozen=True)
class Intervention:
    """What a SteeringConfig is made of, one or several: x ← x + s·Δ(x) at a site, in some blocks, at some positions.

    `layers` are block indices, negative ones from the end; None is every block.

    Raises ActshiftError for an unknown site, and for values of another kind than these.
    Source: the terms are ReFT's (arXiv 2404.03592, definition 3.1), the sites arXiv 2603.00425's.

    >>> Intervention(LowRank(rank=4), layers=(0, -1)).site
    'post_block'
    """

    adapter: Adapter = field(default_factory=LowRank)
    site: str = "post_block"
    layers: Sequence[int] | None = None
    positions: Positions = field(default_factory=Positions)

    def __post_init__(self) -> None:
        """Check every field, and turn the stored forms into the typed ones."""
        adapter: Any = self.adapter
        object.__setattr__(self, "adapter", adapter_from_dict(adapter) if isinstance(adapter, dict) else adapter)
        positions: Any = self.positions
        if isinstance(positions, dict):
            object.__setattr__(self, "positions", Positions.from_dict(positions))
        if not isinstance(self.adapter, Adapter):
            raise ActshiftError(
                f"adapter must be an adapter such as LowRank(rank=8) or Vector(), got {adapter!r} "
                f"of type {type(adapter).__name__}."
            )
        if not isinstance(self.positions, Positions):
            raise ActshiftError(
                f"positions must be a Positions such as Positions.prompt(), got {positions!r} "
                f"of type {type(positions).__name__}."
            )
        check_site(self.site)
        object.__setattr__(self, "layers", _indices(self.layers))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields ready for JSON, as `interventions_from` reads them."""
        layers = None if self.layers is None else list(self.layers)
        return {
            "adapter": self.adapter.to_dict(),
            "site": self.site,
            "layers": layers,
            "positions": self.positions.to_dict(),
        }


@dataclass(frozen=True)
class Target:
    """One host in one model, and the intervention that it gets."""

    host: Host
    intervention: Intervention


def targets(model: nn.Module, interventions: Iterable[Intervention], blocks: str | None = None) -> list[Target]:
    """Return where `interventions` stand in `model`, in their order.

    Raises ActshiftError where a site, a layer or an adapter does not fit the model, or two interventions share a host.

    >>> from actshift.demo import load_base
    >>> [target.host.layer for target in targets(load_base()[0], [Intervention(layers=(0, -1))])]
    [0, 5]
    """
    found = [
        Target(host, intervention)
        for intervention in interventions
        for host in resolve(model, intervention.site, intervention.layers, blocks)
    ]
    seen = set()
    for target in found:
        host = target.host
        target.intervention.adapter.check_shape(host.width, host.heads)
        if (host.name, host.at_input) in seen:
            raise ActshiftError(
                f"two interventions steer {host.site} of block {host.layer} ({host.name}); one adapter has one at each "
                "place: leave one out, or load it as a second adapter."
            )
        seen.add((host.name, host.at_input))
    return found


def interventions_from(values: Any) -> tuple[Intervention, ...]:
    """Return interventions that are given typed, or as `Intervention.to_dict` wrote them.

    Raises ActshiftError for an empty list, an unknown field, or what no Intervention can be made of.

    >>> interventions_from([{"site": "post_mlp"}])[0].site
    'post_mlp'
    """
    known = [item.name for item in fields(Intervention)]
    if not isinstance(values, list | tuple) or not values:
        raise ActshiftError(f"interventions must be a list of at least one Intervention, got {values!r}.")
    for value in values:
        for name in value if isinstance(value, dict) else ():
            if name not in known:
                raise ActshiftError(
                    f"unknown field {name!r} of an intervention{did_you_mean(name, known)}; it takes "
                    f"{', '.join(known)}."
                )
        if not isinstance(value, dict | Intervention):
            raise ActshiftError(f"interventions holds {value!r}, which is no Intervention.")
    return tuple(Intervention(**value) if isinstance(value, dict) else value for value in values)


def _indices(layers: Sequence[int] | None) -> tuple[int, ...] | None:
    if layers is None:
        return None
    if isinstance(layers, str) or not isinstance(layers, Sequence) or not all(type(i) is int for i in layers):
        raise ActshiftError(
            f"layers must be a list or range of block indices such as [0, 1] or range(-4, 0), or None for all; "
            f"got {layers!r}."
        )
    return tuple(layers)
