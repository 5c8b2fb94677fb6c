"""The orthogonality rule of a whole model: enforce it now, and say how far it is from holding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from torch import nn

from actshift.adapters import Shift
from actshift.errors import ActshiftError
from actshift.orthogonality import violation
from actshift.tuner.joint.constraint import Constraint, Pair, project
from actshift.tuner.strength import steering_layers


def enforce(model: nn.Module, adapter_name: str | None = None) -> None:
    """Project the joint adapters of a model now, whatever their rule's `every` says: W_down ← W_down (I − QQᵀ).

    Training does this by itself; call it after editing weights by hand, and at the end of training under a rule of
    every k steps or epochs. One adapter, or with None all; frozen ones too. A soft rule (`penalty`) is left alone.

    Raises ActshiftError where there is no rule.

    >>> enforce(model)  # doctest: +SKIP
    """
    found = [(constraint, pair) for _, constraint, pair in _pairs(model, adapter_name) if constraint.orthogonality]
    if not found:
        what = type(model).__name__ if adapter_name is None else f"adapter {adapter_name!r}"
        raise ActshiftError(f"{what} carries no orthogonality rule; attach a JointConfig with one.")
    project(pair for constraint, pair in found if constraint.period)


def orthogonality_violations(model: nn.Module) -> dict[str, float]:
    """Return for each steering layer how far its rule is from holding, 0 (orthogonal) to 1, by the layer's name.

    The figure is `actshift.orthogonality.violation`: the largest share of a row of W_down that lies in col(B), of a
    layer's adapters the worst. Under `orthogonality=None` it is that of the paper's rule, which nothing then enforces.

    Raises ActshiftError for a model without joint adapters.

    >>> max(orthogonality_violations(model).values())  # doctest: +SKIP
    1.4e-08
    """
    figures: dict[str, float] = {}
    for name, _, pair in _pairs(model):
        figure = violation(*pair.stacked()) if pair.rows and pair.columns else 0.0
        figures[name] = figure if figure != figure else max(figures.get(name, 0.0), figure)  # NaN stays
    if not figures:
        raise ActshiftError(f"{type(model).__name__} carries no joint adapter; attach a JointConfig.")
    return figures


def _pairs(model: nn.Module, wanted: str | None = None) -> Iterator[tuple[str, Constraint, Pair]]:
    for name, layer in steering_layers(model).items():
        for adapter_name, constraint in layer.constraints.items():
            if wanted in (None, adapter_name):
                shift = cast(Shift, layer.lora_steer[adapter_name])
                yield name, constraint, Pair(constraint.rows(shift), constraint.columns(adapter_name))
