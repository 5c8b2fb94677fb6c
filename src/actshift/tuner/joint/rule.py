"""The orthogonality rule of a joint adapter, tied to one model: what LoRA writes in each steered block."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any, cast

from torch import nn

from actshift.adapters import Shift
from actshift.errors import ActshiftError
from actshift.orthogonality import Orthogonality, violation
from actshift.sites import SITES, OutputMap, mlp_outputs
from actshift.tuner.controls import steering_layers
from actshift.tuner.intervention import Target
from actshift.tuner.joint.config import JointConfig
from actshift.tuner.joint.constraint import Constraint, Pair, project
from actshift.tuner.layer import build_shift, layer_at


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


CONSTRAINED_SITES = tuple(name for name, site in SITES.items() if site.written_by_mlp)
"""The sites that what the MLP's output map writes flows through."""

Writers = dict[int, list[OutputMap]]
"""By layer, the MLP output maps that LoRA adapts."""


def find_writers(
    model: nn.Module, config: JointConfig, targets: list[Target], adapts: Callable[[str], bool]
) -> Writers:
    """Return which MLP output maps of the steered blocks LoRA adapts.

    Raises ActshiftError where a rule has nothing to hold: a site or an adapter that it does not concern, or no
    steered block with LoRA on its MLP output map. A block that lacks it, beside others that have it, is a warning.
    Without a rule nothing is asked, and what can be found is returned.
    """
    rule = config.rule
    if rule is not None:
        for target in targets:
            _check_concerned(target, rule)
    layers = sorted({target.host.layer for target in targets if target.host.site in CONSTRAINED_SITES})
    try:
        maps = mlp_outputs(model, layers, config.blocks) if layers else []
    except ActshiftError:
        if rule is None:
            return {}
        raise
    experts = tuple(config.target_parameters or ())
    writers: Writers = {}
    for one in maps:
        if one.name.endswith(experts) if one.parameter else adapts(one.name):
            writers.setdefault(one.layer, []).append(one)
    if rule is not None:
        _check_covered(layers, writers, maps[0])
        _check_room(config, writers)
    return writers


def constrain(
    model: nn.Module, adapter_name: str, config: JointConfig, targets: list[Target], writers: Writers
) -> None:
    """Tie every steered layer to the LoRA layers it is kept apart from, and enforce the rule on the fresh weights."""
    rule = config.rule
    for target in targets:
        if target.host.layer in writers and target.host.site in CONSTRAINED_SITES:
            modules = [_lora_layer(model, one) for one in writers[target.host.layer]]
            layer_at(target.host).constraints[adapter_name] = Constraint(rule, modules, target.host.width)
    on_meta = any(parameter.is_meta for parameter in model.parameters())
    if rule is not None and not on_meta:
        enforce(model, adapter_name)


def _check_concerned(target: Target, rule: Orthogonality) -> None:
    if target.host.site not in CONSTRAINED_SITES:
        raise ActshiftError(
            f"the orthogonality rule concerns {' and '.join(CONSTRAINED_SITES)}, which the MLP's output map writes to, "
            f"and this adapter steers {target.host.site}; steer one of these, or give orthogonality=None."
        )
    shift = build_shift(target)
    for bound, tensors, what in ((rule.reads, shift.reads(), "reads"), (rule.writes, shift.writes(), "writes")):
        if bound and not tensors:
            raise ActshiftError(
                f"{target.intervention.adapter} {what} through no matrix that could be kept orthogonal; use LowRank, "
                f"{'Orthogonality(side=...)' if shift.reads() or shift.writes() else 'another adapter'}, or "
                "orthogonality=None."
            )


def _check_covered(layers: list[int], writers: Writers, example: OutputMap) -> None:
    if not writers:
        where = "target_parameters" if example.parameter else "target_modules"
        raise ActshiftError(
            f"there is nothing to be orthogonal to: no steered block has LoRA on its MLP output map, here "
            f"{example.name}; add it to {where}, or give orthogonality=None."
        )
    if free := [str(layer) for layer in layers if layer not in writers]:
        warnings.warn(
            f"the orthogonality rule leaves out the blocks {', '.join(free)}, which have no LoRA on their MLP output "
            "map.",
            stacklevel=2,
        )


def _check_room(config: JointConfig, writers: Writers) -> None:
    """What LoRA may write must leave directions to read: with many experts it soon is all there is."""
    for layer, maps in writers.items():
        columns = sum(
            config.r * len(one.module.get_parameter(one.parameter)) if one.parameter else config.r for one in maps
        )
        if columns >= maps[0].width:
            raise ActshiftError(
                f"LoRA of rank {config.r} on the MLP output maps of block {layer} may write {columns} directions of "
                f"{maps[0].width}, which leaves nothing to be orthogonal in; lower r, take the experts out of "
                "target_parameters, or give orthogonality=None."
            )


def _lora_layer(model: nn.Module, output: OutputMap) -> nn.Module:
    """The LoRA layer round a map; round a module of experts PEFT nests one wrapper for each parameter it adapts."""
    if output.parameter is None:
        return model.get_submodule(output.name)
    module: Any = model.get_submodule(output.name.rpartition(".")[0])
    while getattr(module, "parameter_name", output.parameter) != output.parameter:
        module = module.base_layer
    return module
